"""The formats in which models write tool calls, one module for each kind."""

from mlx_manager.parsing.tool_formats.tagged_json import HERMES, TaggedJson

__all__ = ["HERMES", "TaggedJson"]
