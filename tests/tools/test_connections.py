"""Tool servers: real processes and addresses, what they offer, and everything that goes wrong with them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mlx_manager.catalog import ToolServer, ToolServerKind, ToolServerSecret
from mlx_manager.errors import NotFound
from mlx_manager.tools import Toolbox, ToolServerFailed

SHOP = Path(__file__).parent / "shop_server.py"
SECRET = ToolServerSecret(variables={"SHOP_SECRET": "open sesame"})


def stdio(name: str = "shop", *more: str, **fields: Any) -> ToolServer:
    return ToolServer(id=1, name=name, kind=ToolServerKind.STDIO, command=(sys.executable, str(SHOP), *more), **fields)


@pytest.fixture
async def toolbox() -> AsyncIterator[Toolbox]:
    """Closed at the end: no process outlives it."""
    made = Toolbox()
    yield made
    await made.close()


def use(toolbox: Toolbox, *servers: ToolServer) -> None:
    toolbox.update(servers, lambda name: name, lambda _: SECRET)


@pytest.fixture(scope="module")
def shop_url() -> Iterator[str]:
    """The shop over HTTP, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, SHOP, "http", str(port)]) as process:
        deadline_s = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
        process.terminate()


async def test_a_command_is_started_asked_and_ended(toolbox: Toolbox) -> None:
    use(toolbox, stdio(timeout_s=2.5))
    offered = await toolbox.offer(["shop"])
    assert [one.name for one in offered] == ["find_price", "wait", "leave", "environment"]
    assert '"item"' in offered[0].tool.parameters
    reply = await toolbox.call("shop", "find_price", {"item": "tea"})
    assert (reply.text, reply.is_error) == ("tea costs 4 euros", False)
    # what the tool says went wrong is for the model
    assert (await toolbox.call("shop", "find_price", {"item": "car"})).is_error
    assert (await toolbox.call("shop", "find_price", {})).is_error
    # its own variables and those that every program needs, none of this process's others
    names = (await toolbox.call("shop", "environment", {})).text.split()
    assert names[-2:] == ["open", "sesame"]
    assert "PYTEST_CURRENT_TEST" not in names
    with pytest.raises(ToolServerFailed, match=r"wait took longer than 2\.5 s"):
        await toolbox.call("shop", "wait", {"seconds": 30})
    # a server that ends in the middle is started again
    with pytest.raises(ToolServerFailed, match="shop"):
        await toolbox.call("shop", "leave", {})
    assert (await toolbox.call("shop", "find_price", {"item": "cake"})).text == "cake costs 6 euros"


async def test_a_command_that_fails_is_told_with_what_it_said(toolbox: Toolbox) -> None:
    use(
        toolbox,
        stdio("closed", "closed"),
        ToolServer(id=1, name="gone", kind=ToolServerKind.STDIO, command=("/gone",)),
    )
    with pytest.raises(ToolServerFailed, match="the shop is closed"):
        await toolbox.offer(["closed"])
    with pytest.raises(ToolServerFailed, match="No such file"):
        await toolbox.offer(["gone"])


async def test_an_address_is_asked_where_it_may_be(toolbox: Toolbox, shop_url: str) -> None:
    private = ToolServer(id=1, name="net", kind=ToolServerKind.HTTP, url=shop_url, allows_private_address=True)
    use(toolbox, private, ToolServer(id=2, name="public", kind=ToolServerKind.HTTP, url=shop_url))
    reply, other = await asyncio.gather(
        toolbox.call("net", "find_price", {"item": "tea"}), toolbox.call("net", "find_price", {"item": "cake"})
    )
    assert (reply.text, other.text) == ("tea costs 4 euros", "cake costs 6 euros")
    with pytest.raises(ToolServerFailed, match="allows_private_address"):
        await toolbox.offer(["public"])
    # tools of one name are told apart
    use(toolbox, private, msgspec.structs.replace(private, name="other.net"))
    offered = await toolbox.offer(["net", "other.net", "weather"])
    names = [one.tool.name for one in offered]
    assert (names[0], names[4], names[-1]) == ("net__find_price", "other_net__find_price", "get_weather")
    assert (offered[4].server, offered[4].name) == ("other.net", "find_price")


class TwoAddresses(asyncio.SelectorEventLoop):
    """Every name leads to two addresses, of which tests serve at the second one only."""

    async def getaddrinfo(self, host: Any, port: Any, **kinds: Any) -> Any:
        """As a name service would."""
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]


def test_every_address_of_a_name_is_tried(shop_url: str) -> None:
    url = shop_url.replace("127.0.0.1", "localhost")

    async def call() -> str:
        toolbox = Toolbox()
        use(toolbox, ToolServer(id=1, name="net", kind=ToolServerKind.HTTP, url=url, allows_private_address=True))
        try:
            return (await toolbox.call("net", "find_price", {"item": "tea"})).text
        finally:
            await toolbox.close()

    with asyncio.Runner(loop_factory=TwoAddresses) as runner:
        assert runner.run(call()) == "tea costs 4 euros"


async def test_a_server_that_is_off_or_gone_is_named(toolbox: Toolbox) -> None:
    use(toolbox, stdio(is_on=False))
    with pytest.raises(NotFound, match="shop"):
        await toolbox.offer(["shop"])
    assert [server.name for server in toolbox.servers] == ["calculator", "weather"]


async def test_those_that_ship_answer(toolbox: Toolbox) -> None:
    reply = await toolbox.call("calculator", "calculate", {"expression": "(2 + 3) * sqrt(16)"})
    assert (reply.text, reply.is_error) == ("20", False)
    reply = await toolbox.call("calculator", "calculate", {"expression": "__import__('os')"})
    assert reply.is_error
    reply = await toolbox.call("weather", "get_weather", {"city": "paris", "month": "July"})
    assert reply.text.startswith("Paris in July: 21 °C")
    reply = await toolbox.call("weather", "get_weather", {"town": 5})
    assert reply.text == "get_weather takes the texts city, month."
