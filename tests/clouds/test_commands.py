"""Providers and routes from the terminal, beside the running server that follows them."""

from __future__ import annotations

import time

import pytest
from typer.testing import CliRunner

from mlx_manager.cli.main import app
from mlx_manager.errors import MlxManagerError
from tests.clouds.conftest import Cloud
from tests.clouds.upstream_server import KEY


def command(cloud: Cloud, *arguments: str, said: str = "", **variables: str) -> str:
    """One command on the home of the server: what it prints, or the error that it ends with."""
    done = CliRunner().invoke(app, [*arguments, "--home", str(cloud.home)], input=said, env=variables)
    assert done.exception is None or isinstance(done.exception, MlxManagerError), done.output
    return done.output if done.exception is None else str(done.exception)


def explained(cloud: Cloud, model: str, *flags: str) -> str:
    """What the running server says of a request for `model`."""
    port = cloud.served.base_url.removesuffix("/v1").rpartition(":")[2]
    return command(cloud, "route", "test", model, *flags, "--port", port)


def catch_up(cloud: Cloud) -> None:
    """Have the running server read what a command changed, which it would by itself within a second."""
    assert cloud.client.patch("/admin/settings", json={"use_cloud": True}).status_code == 200


def test_a_provider_and_its_routes_are_set_up_from_a_terminal(cloud: Cloud) -> None:
    made = command(
        cloud,
        *("provider", "add", "mine", "openai-compatible", "--base-url", cloud.upstream.base_url, "--private"),
        *("--header", "x-team=TEAM", "--price", "*=1,2,0.5,4", "--timeout", "first-token=3", "--retries", "0"),
        said=f"{KEY}\n",
        TEAM="secret-team",
    )
    assert f"mine is at {cloud.upstream.base_url}" in made
    assert KEY not in made
    deadline_s = time.monotonic() + 10
    while (shown := cloud.client.get("/admin/providers/mine")).status_code == 404:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    kept = shown.json()
    assert (kept["has_key"], kept["header_names"], kept["max_retries"]) == (True, ["x-team"], 0)
    price = {"input_usd": 1.0, "output_usd": 2.0, "cached_input_usd": 0.5, "cache_write_usd": 4.0}
    assert kept["prices"] == {"*": price}
    assert (kept["timeouts"]["first_token_s"], kept["timeouts"]["total_s"]) == (3.0, 600.0)
    assert command(cloud, "provider", "test", "mine").splitlines()[1:] == ["flaky", "ok"]
    listed = command(cloud, "provider", "list")
    assert "flaky, ok" in listed
    assert KEY not in listed
    assert (
        command(cloud, "route", "add", "first", "gpt-", "local/m", "mine/ok", "--kind", "prefix", "--tools")
        == "first: gpt- → local/m, mine/ok\n"
    )
    assert "second: gpt-4 → mine/ok" in command(cloud, "route", "add", "second", "gpt-4", "mine/ok")
    catch_up(cloud)
    assert "route second: matches" in explained(cloud, "gpt-4")
    assert "passed over, it has no tools" in explained(cloud, "gpt-4")
    assert "1      recorder  m      is asked" in explained(cloud, "gpt-4", "--tools")
    assert "has to stay on this machine" in explained(cloud, "gpt-4", "--local-only")
    assert cloud.ask("gpt-4").headers["x-mlx-backend"] == "mine"
    assert cloud.upstream.headers[-1]["x-team"] == "secret-team"
    assert cloud.upstream.headers[-1]["authorization"] == f"Bearer {KEY}"
    command(cloud, "route", "set", "first", "--no-conditions", "--queue-wait", "5", "--target", "mine/ok")
    command(cloud, "route", "set", "first", "--order", "conversation")
    catch_up(cloud)
    changed = next(row for row in cloud.client.get("/admin/routes").json()["routes"] if row["name"] == "first")
    assert (changed["conditions"]["needs_tools"], changed["order"]) == (None, "conversation")
    assert (changed["spill"]["queue_wait_s"], changed["targets"]) == (5.0, [{"provider": "mine", "model": "ok"}])
    assert command(cloud, "route", "move", "second", "1") == "The order is now: second, first\n"
    assert command(cloud, "route", "list").splitlines()[1].split()[:3] == ["1", "second", "exact"]
    assert "(off)" in command(cloud, "route", "set", "second", "--off")
    catch_up(cloud)
    assert "route first: matches" in explained(cloud, "gpt-4")
    assert "Routes lead to mine: second, first" in command(cloud, "provider", "rm", "mine")
    for name in ("first", "second"):
        assert command(cloud, "route", "rm", name) == f"{name} is deleted.\n"
    assert "mine is off" in command(cloud, "provider", "set", "mine", "--off", "--no-key")
    assert command(cloud, "provider", "test", "mine").startswith("mine refuses the key")
    assert "mine is on" in command(cloud, "provider", "set", "mine", "--on", "--key-env", "UP_KEY", UP_KEY=KEY)
    assert "mine answers" in command(cloud, "provider", "test", "mine")
    assert command(cloud, "provider", "rm", "mine") == "mine is deleted.\n"
    catch_up(cloud)
    assert cloud.client.get("/admin/providers/mine").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("provider", "add", "p", "openai"), "No key. It was not typed"),
        (("provider", "add", "p", "openai", "--key-env", "NOT_THERE"), "The variable NOT_THERE is empty"),
        (("provider", "add", "local", "openai", "--no-key"), "'local' is this machine"),
        (("provider", "add", "p", "openai", "--no-key", "--header", "x-a"), "--header x-a=VARIABLE"),
        (("provider", "add", "p", "openai", "--no-key", "--price", "m=1"), "--price is MODEL=IN,OUT"),
        (("provider", "add", "p", "openai", "--no-key", "--timeout", "sleep=1"), "--timeout is PHASE=SECONDS"),
        (("provider", "add", "p", "openai-compatible", "--no-key"), "base_url looks like"),
        (("provider", "set", "up"), "Nothing to change"),
        (("provider", "set", "nobody", "--off"), "There is no provider 'nobody'"),
        (("route", "add", "r", "(a+", "up/ok", "--kind", "regex"), "regular expression cannot be used"),
        (("route", "add", "r", "a", "nobody/ok"), "There is no provider 'nobody'"),
        (("route", "set", "r"), "Nothing to change"),
        (("route", "move", "r", "1"), "There is no route 'r'"),
    ],
)
def test_what_is_wrong_is_named(cloud: Cloud, arguments: tuple[str, ...], message: str) -> None:
    assert message in command(cloud, *arguments)
