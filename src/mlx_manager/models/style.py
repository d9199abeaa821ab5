"""How a model writes its answers, told from its chat template."""

from __future__ import annotations

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_manager.parsing import AnswerStyle, MarkedStyle, ReasoningFormat
from mlx_manager.parsing.tool_formats import HERMES


def style_of(tokenizer: TokenizerWrapper) -> AnswerStyle:
    """The style of the model that `tokenizer` belongs to: calls in the form of Hermes, which is also that of Qwen."""
    reasoning = ReasoningFormat() if tokenizer.has_thinking and tokenizer.think_start == "<think>" else None
    return MarkedStyle(reasoning, HERMES)
