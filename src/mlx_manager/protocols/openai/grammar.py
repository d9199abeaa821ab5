"""The form an answer must have, from the four fields of the OpenAI dialect that can say it."""

from __future__ import annotations

import json

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import Grammar, GrammarKind
from mlx_manager.protocols.openai.wire import ChatRequest, CompletionRequest, ResponseFormat


def parse_grammar(wire: ChatRequest | CompletionRequest) -> Grammar | None:
    """The one grammar of a request. Raises `InvalidRequest` when it has several, or one that cannot be meant."""
    found = [
        grammar
        for grammar in (
            _parse_response_format(wire.response_format),
            _parse_guided_json(wire.guided_json),
            _parse_guided("guided_regex", GrammarKind.REGEX, wire.guided_regex),
            _parse_guided("guided_grammar", GrammarKind.LARK, wire.guided_grammar),
        )
        if grammar is not None
    ]
    if not found:
        return None
    names = [grammar.param.split(".")[0] for grammar in found]
    if len(names) > 1:
        raise InvalidRequest(f"{' and '.join(names)} exclude each other: send one of them.", param=names[1])
    if wire.ignore_eos:
        raise InvalidRequest(f"ignore_eos would go on behind the end of {names[0]}: leave it out.", param="ignore_eos")
    return found[0]


def _parse_response_format(sent: ResponseFormat | None) -> Grammar | None:
    if sent is None or sent.type == "text":
        return None
    extra = sent.model_extra or {}
    if sent.type == "json_object" and extra.get("schema") is None:
        return Grammar(kind=GrammarKind.JSON_OBJECT, param="response_format")
    if sent.type == "json_object" or sent.json_schema is None:
        raise InvalidRequest(
            "response_format.json_schema is required for a schema: send "
            '{"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}.',
            param="response_format.json_schema",
        )
    param = "response_format.json_schema.schema"
    return Grammar(kind=GrammarKind.JSON_SCHEMA, param=param, text=json.dumps(sent.json_schema.schema_))


def _parse_guided_json(sent: str | dict[str, object] | None) -> Grammar | None:
    if sent is None:
        return None
    text = sent if isinstance(sent, str) else json.dumps(sent)
    return Grammar(kind=GrammarKind.JSON_SCHEMA, param="guided_json", text=text)


def _parse_guided(name: str, kind: GrammarKind, text: str | None) -> Grammar | None:
    return None if text is None else Grammar(kind=kind, param=name, text=text)
