"""Text in, events out: what a model's raw text means. Pure functions and small machines, no tokenizer, no model."""

from mlx_manager.parsing.answer import AnswerParser
from mlx_manager.parsing.harmony import HarmonyStyle
from mlx_manager.parsing.stop import StopMatcher
from mlx_manager.parsing.style import AnswerStyle, Call, MarkedStyle, ReasoningFormat, ToolFormat

__all__ = [
    "AnswerParser",
    "AnswerStyle",
    "Call",
    "HarmonyStyle",
    "MarkedStyle",
    "ReasoningFormat",
    "StopMatcher",
    "ToolFormat",
]
