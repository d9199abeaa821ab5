"""How a model is prompted and how its answers are read: its family, told from its config and its chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer

from mlx_manager.catalog import LoadOptions
from mlx_manager.models.chat_template import ChatTemplate, template_text
from mlx_manager.models.families import GENERIC, Family, find_family
from mlx_manager.models.library_calls import LibraryCalls
from mlx_manager.parsing import AnswerStyle, MarkedStyle, ReasoningFormat, ToolFormat
from mlx_manager.parsing.tool_formats import HERMES


@dataclass(frozen=True)
class ModelStyle:
    """The style of one model."""

    family: Family
    template: ChatTemplate
    answers: AnswerStyle
    warning: str = ""
    """What is not known about it, in a sentence for the operator."""

    @staticmethod
    def of(tokenizer: TokenizerWrapper, model_type: str, options: LoadOptions | None = None) -> ModelStyle:
        """The style of the model that `tokenizer` belongs to, whose config has `model_type`.

        Raises `InvalidRequest` where its chat template computes for too long.
        """
        family = find_family(model_type, template_text(tokenizer))
        template = ChatTemplate(tokenizer, family, timeout_s=(options or LoadOptions()).template_timeout_s)
        tools = template.tools or _library_format(tokenizer)
        warning = _warning(family, model_type, template, tools)
        if family.style is not None:
            return ModelStyle(family, template, family.style, warning)
        answers = MarkedStyle(_reasoning(tokenizer, family), tools or HERMES, family.ignored)
        return ModelStyle(family, template, answers, warning)


def stop_token_ids(tokenizer: TokenizerWrapper, model_type: str) -> frozenset[int]:
    """The tokens that end an answer of this model beside those that its own files name."""
    stop_tokens = find_family(model_type, template_text(tokenizer)).stop_tokens
    return frozenset(_find_tokens(tokenizer, stop_tokens).values())


def _library_format(tokenizer: TokenizerWrapper) -> ToolFormat | None:
    if not tokenizer.has_tool_calling or not tokenizer.tool_call_end:
        return None
    parse = tokenizer.tool_parser
    name = str(parse.__module__).rsplit(".", 1)[-1]
    return LibraryCalls(f"mlx-lm's {name}", (tokenizer.tool_call_start,), tokenizer.tool_call_end, parse)


def _reasoning(tokenizer: TokenizerWrapper, family: Family) -> ReasoningFormat | None:
    """The reasoning format whose markers the model knows; of a family that names none, the one that mlx-lm infers."""
    text = template_text(tokenizer)
    for reasoning in family.reasoning:
        unsaid = [marker for marker in (reasoning.begin, reasoning.end) if marker not in text]
        if len(_find_tokens(tokenizer, unsaid)) == len(unsaid):
            return reasoning
    if tokenizer.has_thinking:
        return ReasoningFormat(tokenizer.think_start, tokenizer.think_end)
    return None


def _find_tokens(tokenizer: TokenizerWrapper, tokens: Sequence[str]) -> dict[str, int]:
    """The ids of those of `tokens` that the vocabulary has."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        # a vocabulary as a whole takes a good part of a second to copy
        found = {token: backend.token_to_id(token) for token in tokens}
        return {token: token_id for token, token_id in found.items() if token_id is not None}
    vocabulary = tokenizer.get_vocab() if tokens else {}
    return {token: vocabulary[token] for token in tokens if token in vocabulary}


def _warning(family: Family, model_type: str, template: ChatTemplate, tools: ToolFormat | None) -> str:
    if not template.is_tool_form_known:
        read = f"by {tools.name}" if tools else "in the form of Hermes, for want of a better"
        return f"how models of type {model_type!r} write tool calls is not known here; they are read {read}"
    if family is GENERIC:
        return f"models of type {model_type!r} are not known here; the chat template alone says how to prompt them"
    return ""
