"""Which tools a request may call, and the grammar of its calls where they are constrained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ChatPrompt, Grammar, GrammarKind, Tool, ToolChoiceMode
from mlx_manager.parsing import AnswerStyle
from mlx_manager.parsing.grammar import json_value, parameters_of


@dataclass(frozen=True)
class CallRules:
    """How the calls of one model's answers are constrained."""

    style: AnswerStyle
    special_ids: Mapping[str, int]
    """Of the tokens that the style's markers are or contain."""

    @staticmethod
    def of(style: AnswerStyle, tokenizer: TokenizerWrapper) -> CallRules:
        """The rules of a model that answers in `style`."""
        # llguidance takes added tokens for special ones, whatever the tokenizer says of them, so all go by their ids.
        ids = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items()}
        inside = [each for each in ids if each.strip() and any(each in marker for marker in style.markers)]
        return CallRules(style, {each: ids[each] for each in sorted(inside, key=len, reverse=True)})

    def grammar(self, prompt: ChatPrompt, form: Grammar | None, *, starts_in_reasoning: bool) -> Grammar | None:
        """The grammar of the whole answer: None where it is free.

        A call is constrained when one has to be made, when only some of the tools may be called, or when one of them is
        strict; before it the model may think, and unless it has to call it may say whatever is no call. Arguments of a
        tool that is not strict are any object as long as no call has to be made. With `form`, the form that the client
        asked for, the answer is a call or has that form.
        Raises `InvalidRequest` for a model that makes no calls.
        """
        tools, choice = callable_tools(prompt), prompt.tool_choice
        is_required = choice.mode is ToolChoiceMode.REQUIRED
        is_constrained = is_required or form or choice.names or any(tool.strict for tool in tools)
        if not tools or not is_constrained:
            return form
        if not is_required:
            tools = tuple(tool if tool.strict else replace(tool, parameters='{"type": "object"}') for tool in tools)
        try:
            text = self.style.lark(
                tools,
                parallel=prompt.parallel_tool_calls,
                required=is_required,
                special_ids=self.special_ids,
                starts_in_reasoning=starts_in_reasoning,
                may_reason=prompt.thinking.is_enabled is not False,
                form="" if form is None or is_required else _rule_of(form),
            )
        except ValueError as error:
            raise InvalidRequest(f"tools cannot be enforced: {error}", param="tools") from None
        is_of_form = form is not None and not is_required and not any(tool.strict for tool in tools)
        return Grammar(kind=GrammarKind.LARK, param=form.param if form and is_of_form else "tools", text=text)

    def may_call(self, prompt: ChatPrompt, form: Grammar | None) -> bool:
        """Whether an answer to `prompt` may hold calls: beside a form, only where one grammar can tell both."""
        if form is None or prompt.tool_choice.mode is ToolChoiceMode.REQUIRED:
            return True
        return bool(callable_tools(prompt)) and self.style.can_answer_in_a_form and form.kind in _JSON_KINDS


_JSON_KINDS = (GrammarKind.JSON_SCHEMA, GrammarKind.JSON_OBJECT)


def _rule_of(form: Grammar) -> str:
    """The body of the rule that matches what has that form. Raises `InvalidRequest`."""
    if form.kind is GrammarKind.JSON_OBJECT:
        return json_value({"type": "object"})
    try:
        schema = json.loads(form.text)
    except ValueError as error:
        raise InvalidRequest(f"{form.param} cannot be enforced: it is not JSON: {error}", param=form.param) from None
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{form.param} cannot be enforced beside tools: send an object.", param=form.param)
    return json_value(schema)


def enforced_schemas(prompt: ChatPrompt, form: Grammar | None) -> tuple[tuple[str, str], ...]:
    """The schemas that the grammar of an answer to `prompt` is made of: whose each is, in words, and its text."""
    is_required = prompt.tool_choice.mode is ToolChoiceMode.REQUIRED
    enforced = [tool for tool in callable_tools(prompt) if is_required or tool.strict]
    found = [(f"the parameters of the tool {tool.name!r}: ", json.dumps(parameters_of(tool))) for tool in enforced]
    if form is not None and form.kind is GrammarKind.JSON_SCHEMA and not is_required:
        found.append((f"{form.param}: " if found else "", form.text))
    return tuple(found)


def callable_tools(prompt: ChatPrompt) -> tuple[Tool, ...]:
    """The tools that an answer to `prompt` may call."""
    if prompt.tool_choice.mode is ToolChoiceMode.NONE:
        return ()
    names = prompt.tool_choice.names
    return tuple(tool for tool in prompt.tools if not names or tool.name in names)
