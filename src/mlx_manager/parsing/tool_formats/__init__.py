"""The formats in which models write tool calls, one module for each kind."""

from mlx_manager.parsing.tool_formats.gemma import FUNCTION_GEMMA, GEMMA4
from mlx_manager.parsing.tool_formats.llama import LLAMA3
from mlx_manager.parsing.tool_formats.named_calls import (
    DEEPSEEK_R1,
    DEEPSEEK_V31,
    KIMI_K2,
    MISTRAL_ARGS,
    MISTRAL_LIST,
)
from mlx_manager.parsing.tool_formats.pythonic import LFM2, LLAMA4
from mlx_manager.parsing.tool_formats.tagged_json import (
    COMMAND_R,
    GRANITE,
    HERMES,
    MINIMAX_M1,
    NEMOTRON,
    PHI4_MINI,
    TaggedJson,
)
from mlx_manager.parsing.tool_formats.text_calls import (
    DEEPSEEK_V4,
    DEEPSEEK_V32,
    GLM,
    LONGCAT,
    MINIMAX_M2,
    QWEN3_CODER,
    SEED,
)

__all__ = [
    "COMMAND_R",
    "DEEPSEEK_R1",
    "DEEPSEEK_V4",
    "DEEPSEEK_V31",
    "DEEPSEEK_V32",
    "FUNCTION_GEMMA",
    "GEMMA4",
    "GLM",
    "GRANITE",
    "HERMES",
    "KIMI_K2",
    "LFM2",
    "LLAMA3",
    "LLAMA4",
    "LONGCAT",
    "MINIMAX_M1",
    "MINIMAX_M2",
    "MISTRAL_ARGS",
    "MISTRAL_LIST",
    "NEMOTRON",
    "PHI4_MINI",
    "QWEN3_CODER",
    "SEED",
    "TaggedJson",
]
