"""Tool calls in a chat: asked about, made by real servers, told to the model, bounded, and kept."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlx_manager.catalog import ToolServer, ToolServerKind, ToolServerSecret
from mlx_manager.ir import ChatPrompt, Role
from mlx_manager.storage.database import Database
from mlx_manager.tools import Toolbox
from mlx_manager.ui.chat_export import export_json, export_markdown
from mlx_manager.ui.chat_parameters import ChatParameters
from mlx_manager.ui.chat_tools import Decision
from mlx_manager.ui.chats import Chats
from mlx_manager.ui.conversation import CallState, Conversation, ToolUse, Turn, TurnState
from mlx_manager.ui.reply_writer import MOST_ROUNDS
from tests.ui import kept_chats
from tests.ui.kept_chats import ADA, ask, two_accounts, until
from tests.ui.tool_models import CallingModels, calls, says

SHOP = Path(__file__).parents[1] / "tools" / "shop_server.py"
SUM = ("calculate", '{"expression": "2 + 2"}')
SCRIPTS = {
    "kind": says("Hello"),
    "adder": calls(SUM),
    "both": calls(SUM, ("get_weather", '{"city": "Oslo", "month": "May"}')),
    "wrong": calls(("fly", "{}"), ("calculate", "[1"), ("calculate", '{"expression": "1 / 0"}')),
    "shopper": calls(("find_price", '{"item": "tea"}'), ("wait", '{"seconds": 60}'), ("leave", "{}")),
    "stubborn": calls(SUM),
    "greedy": calls(*[SUM] * 20),
}
BUILT_IN = ChatParameters(tool_servers=("calculator", "weather"))
ALLOWED = ChatParameters(tool_servers=("calculator",), allowed_tools=("calculator/calculate",))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """SQLite with two accounts."""
    async with two_accounts(tmp_path) as opened:
        yield opened


@pytest.fixture
def models() -> CallingModels:
    """Models that call tools."""
    return CallingModels(SCRIPTS)


@pytest.fixture
async def toolbox() -> AsyncIterator[Toolbox]:
    """The servers that ship, and a shop in a process of its own that is started when it is needed."""
    made = Toolbox()
    command = (sys.executable, str(SHOP))
    shop = ToolServer(id=1, name="shop", kind=ToolServerKind.STDIO, command=command, timeout_s=1.0)
    made.update([shop], lambda _: None, lambda _: ToolServerSecret())
    yield made
    await made.close()


@pytest.fixture
async def chats(database: Database, models: CallingModels, toolbox: Toolbox) -> AsyncIterator[Chats]:
    """The chats of a server."""
    started = kept_chats.start(database, models, toolbox)
    yield started
    await started.close()


def begin(chats: Chats, model: str, parameters: ChatParameters = BUILT_IN) -> tuple[Conversation, Turn]:
    conversation = chats.begin(ADA)
    conversation.parameters = parameters
    return conversation, ask(chats, conversation, conversation.say("How much is it?"), model)


def waiting(reply: Turn) -> list[ToolUse]:
    return [use for one in reply.rounds for use in one.calls if use.state is CallState.ASKED]


async def test_nothing_is_called_before_it_is_allowed(chats: Chats, models: CallingModels) -> None:
    conversation, reply = begin(chats, "adder")
    await until(lambda: waiting(reply))
    (use,) = waiting(reply)
    assert (use.name, use.server, use.arguments) == ("calculate", "calculator", SUM[1])
    assert len(models.requests) == 1
    chats.approvals.decide(use, Decision.ONCE)
    await until(lambda: reply.state is TurnState.DONE)
    assert (use.state, use.result) == (CallState.DONE, "4")
    assert reply.text == "They said: 4"
    asked_again = models.requests[1].prompt
    assert isinstance(asked_again, ChatPrompt)
    assert [tool.name for tool in asked_again.tools] == ["calculate", "get_weather"]
    _, call, result = asked_again.messages
    assert (call.reasoning, [each.name for each in call.tool_calls]) == ("A tool knows.", ["calculate"])
    assert (result.role, result.tool_call_id, result.text) == (Role.TOOL, call.tool_calls[0].call_id, "4")
    assert reply.figures.num_completion_tokens == 24
    # it is asked about again the next time
    again = ask(chats, conversation, conversation.say("Again"), "adder")
    await until(lambda: waiting(again))
    chats.approvals.decide(waiting(again)[0], Decision.ALWAYS)
    await until(lambda: again.state is TurnState.DONE)
    # and then no longer
    third = ask(chats, conversation, conversation.say("Once more"), "adder")
    await until(lambda: third.state is TurnState.DONE)
    assert conversation.parameters.allowed_tools == ("calculator/calculate",)


async def test_a_refused_call_is_not_made_and_the_model_goes_on(chats: Chats) -> None:
    _, reply = begin(chats, "both")
    await until(lambda: len(waiting(reply)) == 2)
    first, second = waiting(reply)
    chats.approvals.decide(first, Decision.REFUSE)
    chats.approvals.decide(second, Decision.ONCE)
    await until(lambda: reply.state is TurnState.DONE)
    assert (first.state, second.state) == (CallState.REFUSED, CallState.DONE)
    assert "The user refused this call" in reply.text
    assert "Oslo in May: 12 °C" in reply.text


async def test_calls_that_cannot_be_made_are_told(chats: Chats) -> None:
    _, reply = begin(chats, "wrong", ALLOWED)
    await until(lambda: reply.state is TurnState.DONE)
    results = [(use.state, use.result) for use in reply.rounds[0].calls]
    assert results == [
        (CallState.FAILED, "There is no tool 'fly'. There is: calculate."),
        (CallState.FAILED, "The arguments are no JSON object."),
        (CallState.FAILED, "It divides by zero."),
    ]
    _, reply = begin(chats, "greedy", ALLOWED)
    await until(lambda: reply.state is TurnState.DONE)
    assert [use.state for use in reply.rounds[0].calls] == [CallState.DONE] * 16 + [CallState.FAILED] * 4


async def test_a_server_that_is_slow_or_ends_is_told(chats: Chats) -> None:
    allowed = tuple(f"shop/{name}" for name in ("find_price", "wait", "leave"))
    _, reply = begin(chats, "shopper", ChatParameters(tool_servers=("shop",), allowed_tools=allowed))
    await until(lambda: reply.state is TurnState.DONE)
    price, wait, leave = reply.rounds[0].calls
    assert price.state in (CallState.DONE, CallState.FAILED), "it may be gone by then"
    assert [use.state for use in (wait, leave)] == [CallState.FAILED] * 2
    assert "shop" in leave.result
    _, reply = begin(chats, "adder", ChatParameters(tool_servers=("gone",)))
    await until(lambda: reply.state is TurnState.FAILED)
    assert reply.error is not None
    assert "gone" in reply.error


async def test_a_model_that_goes_on_calling_is_stopped(chats: Chats, models: CallingModels) -> None:
    _, reply = begin(chats, "stubborn", ALLOWED)
    await until(lambda: reply.state is not TurnState.RUNNING)
    assert reply.error == f"It called tools {MOST_ROUNDS} times in a row, and was stopped there."
    assert len(models.requests) == MOST_ROUNDS


async def test_a_question_ends_with_the_reply(chats: Chats) -> None:
    _, reply = begin(chats, "adder")
    await until(lambda: waiting(reply))
    chats.stop(reply)
    await until(lambda: reply.state is TurnState.STOPPED)
    assert [use.state for use in reply.rounds[0].calls] == [CallState.FAILED]
    assert not waiting(reply)


async def test_calls_are_kept_and_told_in_the_next_turn(
    chats: Chats, database: Database, models: CallingModels, toolbox: Toolbox
) -> None:
    conversation, reply = begin(chats, "adder", ALLOWED)
    await until(lambda: reply.state is TurnState.DONE)
    await chats.close()
    after = kept_chats.start(database, models, toolbox)
    again = await after.open(ADA, conversation.id)
    (use,) = again.path()[1].rounds[0].calls
    assert (use.server, use.state, use.result) == ("calculator", CallState.DONE, "4")
    assert b'*Called calculate of calculator* with\n\n```\n{"expression"' in export_markdown(again)
    assert json.loads(export_json(again))["turns"][1]["tool_calls"][0]["result"] == "4"
    reply = ask(after, again, again.say("Thanks"))
    await until(lambda: reply.state is TurnState.DONE)
    roles = [each.role for each in models.requests[-1].prompt.messages]  # type: ignore[union-attr]
    assert roles == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT, Role.USER]
    # without tools some providers refuse the calls of earlier turns: what was said stays
    again.parameters = ChatParameters()
    reply = ask(after, again, again.say("Bye"))
    await until(lambda: reply.state is TurnState.DONE)
    messages = models.requests[-1].prompt.messages  # type: ignore[union-attr]
    assert [each.text for each in messages[:2]] == ["How much is it?", "They said: 4"]
    await after.close()
