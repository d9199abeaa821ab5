"""Tools that models call in the console: MCP servers, those that ship among them.

The official SDK is imported at the first use: it takes most of a second.
"""

from mlx_manager.tools.toolbox import OfferedTool, ServerTool, Toolbox, ToolReply, ToolServerFailed, try_server

__all__ = ["OfferedTool", "ServerTool", "ToolReply", "ToolServerFailed", "Toolbox", "try_server"]
