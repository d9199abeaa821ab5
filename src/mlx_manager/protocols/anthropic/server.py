"""From a request's body to `ir`: what the fields of the wire schema mean together."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import (
    GenerationRequest,
    Grammar,
    GrammarKind,
    PassedOn,
    Sampling,
    TokenizeRequest,
)
from mlx_manager.protocols.anthropic.conversation import parse_conversation
from mlx_manager.protocols.anthropic.message import AnswerForm
from mlx_manager.protocols.anthropic.parameters import COUNT_TOKENS_PARAMETERS, MESSAGES_PARAMETERS
from mlx_manager.protocols.anthropic.tools import streams_arguments
from mlx_manager.protocols.anthropic.wire import CountTokensRequest, MessagesRequest, PromptFields
from mlx_manager.protocols.parameters import passed_on_of, screen_rows
from mlx_manager.protocols.priority import parse_priority
from mlx_manager.protocols.wire import parse_wire

_BETA = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CACHE_MARK = re.compile(rb'"cache_control"\s*:\s*\{')


@dataclass(frozen=True)
class MessagesCall:
    """A parsed POST /v1/messages: what to generate, and in which form to answer."""

    request: GenerationRequest
    stream: bool
    form: AnswerForm
    ignored: tuple[str, ...]
    """Parameters accepted without effect, to be named in the answer's header."""


@dataclass(frozen=True)
class CountCall:
    """A parsed POST /v1/messages/count_tokens."""

    request: TokenizeRequest
    ignored: tuple[str, ...]


def parse_messages(
    body: bytes, *, answer_id: str, priority_header: str | None = None, beta_header: str = ""
) -> MessagesCall:
    """Read the body of POST /v1/messages. `answer_id` must be unique. Raises `InvalidRequest`."""
    wire = parse_wire(MessagesRequest, body)
    ignored = screen_rows(MESSAGES_PARAMETERS, wire.model_extra or {})
    if wire.stream and wire.max_tokens == 0:
        raise InvalidRequest("max_tokens of 0 generates nothing to stream: leave stream out.", param="max_tokens")
    prompt = parse_conversation(wire)
    request = GenerationRequest(
        request_id=answer_id,
        model=wire.model,
        prompt=prompt,
        sampling=_parse_sampling(wire),
        priority=parse_priority(None, priority_header),
        passed_on=_parse_passed_on(wire, beta_header),
    )
    form = AnswerForm(
        id=answer_id,
        model=wire.model,
        omits_thinking=wire.thinking is not None and wire.thinking.display == "omitted",
        has_cache_marks=_CACHE_MARK.search(body) is not None,
        streams_arguments=streams_arguments(wire),
        is_warm_up=wire.max_tokens == 0,
    )
    return MessagesCall(request, bool(wire.stream), form, ignored)


def parse_count(body: bytes, *, answer_id: str) -> CountCall:
    """Read the body of POST /v1/messages/count_tokens. Raises `InvalidRequest`."""
    wire = parse_wire(CountTokensRequest, body)
    ignored = screen_rows(COUNT_TOKENS_PARAMETERS, wire.model_extra or {})
    prompt = parse_conversation(wire)
    request = TokenizeRequest(request_id=answer_id, model=wire.model, prompt=prompt, wants_count_only=True)
    return CountCall(request, ignored)


def _parse_passed_on(wire: MessagesRequest, beta_header: str) -> PassedOn:
    """What nothing is done with here; the betas that are asked for in the header, or in `betas`, among it."""
    extra = wire.model_extra or {}
    told = passed_on_of("messages", MESSAGES_PARAMETERS, extra)
    sent = extra.get("betas")
    names = [name.strip() for name in beta_header.split(",")]
    names += [name for name in sent if isinstance(name, str)] if isinstance(sent, list) else []
    betas = tuple(dict.fromkeys(name for name in names if _BETA.fullmatch(name)))
    return PassedOn(dialect="messages", fields=told.fields, betas=betas) if betas else told


def _parse_sampling(wire: MessagesRequest) -> Sampling:
    stops = tuple(wire.stop_sequences or ())
    if "" in stops:
        raise InvalidRequest(
            "stop_sequences has an empty string, which would stop at once: leave it out.", param="stop_sequences"
        )
    return Sampling(
        # no answer is shorter than a token; one for a request of none is thrown away
        max_tokens=max(wire.max_tokens, 1),
        fits_context=True,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        stop=stops,
        grammar=_parse_format(wire),
    )


def _parse_format(wire: PromptFields) -> Grammar | None:
    format_ = wire.output_config.format if wire.output_config else None
    param = "output_config.format.schema"
    if format_ is None:
        format_, param = wire.output_format, "output_format.schema"
    elif wire.output_format is not None:
        raise InvalidRequest(
            "output_format and output_config.format exclude each other: send the latter.", param="output_format"
        )
    if format_ is None:
        return None
    return Grammar(kind=GrammarKind.JSON_SCHEMA, param=param, text=json.dumps(format_.schema_))
