"""A real MCP server in a process of its own: `python shop_server.py [http PORT]`. It sells things, and may be slow."""

from __future__ import annotations

import asyncio
import os
import sys

if sys.argv[1:] == ["closed"]:
    sys.exit("the shop is closed")

from mcp.server.mcpserver import MCPServer

server = MCPServer("shop", log_level="ERROR")


@server.tool()
def find_price(item: str) -> str:
    """Find what an item costs."""
    prices = {"tea": "4 euros", "cake": "6 euros"}
    if item not in prices:
        raise ValueError(f"no {item} here")
    return f"{item} costs {prices[item]}"


@server.tool(structured_output=False)
async def wait(seconds: float) -> str:
    """Wait for a while."""
    await asyncio.sleep(seconds)
    return "waited"


@server.tool(structured_output=False)
def leave() -> str:
    """End the server in the middle of a call."""
    os._exit(3)


@server.tool(structured_output=False)
def environment() -> str:
    """The names of the variables that it was given, and its secret."""
    return " ".join([*sorted(os.environ), os.environ.get("SHOP_SECRET", "")])


if len(sys.argv) > 2:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
else:
    server.run("stdio")
