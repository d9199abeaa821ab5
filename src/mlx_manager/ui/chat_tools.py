"""The tool calls of one reply: allowed by whoever asks, made, and what came of them written down."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from mlx_manager.errors import MlxManagerError
from mlx_manager.tools import OfferedTool, Toolbox, ToolReply
from mlx_manager.ui.conversation import CallState, Conversation, ToolUse

_MOST_CALLS = 16
"""In one round."""
_DECISION_S = 1800.0
_ENDED = (CallState.DONE, CallState.FAILED, CallState.REFUSED)


class Decision(StrEnum):
    """What whoever asks says about one call."""

    ONCE = "once"
    ALWAYS = "always"
    """In this conversation, and of this tool."""
    REFUSE = "refuse"


class Approvals:
    """The calls that wait for somebody to decide, by anybody who looks at the conversation."""

    def __init__(self) -> None:
        self._waiting: dict[ToolUse, asyncio.Future[Decision]] = {}

    def decide(self, use: ToolUse, decision: Decision) -> None:
        """The first one to decide does."""
        waiting = self._waiting.get(use)
        if waiting is not None and not waiting.done():
            waiting.set_result(decision)

    async def wait(self, use: ToolUse) -> Decision | None:
        """What somebody decides; None when nobody did for half an hour."""
        waiting: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._waiting[use] = waiting
        try:
            async with asyncio.timeout(_DECISION_S):
                return await waiting
        except TimeoutError:
            return None
        finally:
            del self._waiting[use]


class ToolRun:
    """The calls of one reply in `conversation`; `on_change` hears of every step."""

    def __init__(
        self, toolbox: Toolbox, approvals: Approvals, conversation: Conversation, on_change: Callable[[], None]
    ) -> None:
        self._toolbox = toolbox
        self._approvals = approvals
        self._conversation = conversation
        self._on_change = on_change
        self._offered: dict[str, OfferedTool] = {}

    async def offer(self) -> Sequence[OfferedTool]:
        """The tools that the conversation uses. Raises `MlxManagerError` where a server cannot be used."""
        offered = await self._toolbox.offer(self._conversation.parameters.tool_servers)
        self._offered = {one.tool.name: one for one in offered}
        return offered

    async def run(self, uses: Sequence[ToolUse]) -> None:
        """Make these calls, side by side, as far as they are allowed."""
        for use in uses[_MOST_CALLS:]:
            self._end(use, CallState.FAILED, f"More than {_MOST_CALLS} calls at a time are not made.")
        try:
            async with asyncio.TaskGroup() as group:
                for use in uses[:_MOST_CALLS]:
                    group.create_task(self._run_one(use))
        finally:
            for use in uses:
                if use.state not in _ENDED:
                    self._end(use, CallState.FAILED, "The reply was stopped before this call ended.")

    async def _run_one(self, use: ToolUse) -> None:
        offered = self._offered.get(use.name)
        if offered is None:
            self._end(use, CallState.FAILED, f"There is no tool {use.name!r}. There is: {', '.join(self._offered)}.")
            return
        use.server = offered.server
        arguments = _parse(use.arguments)
        if arguments is None:
            self._end(use, CallState.FAILED, "The arguments are no JSON object.")
        elif await self._is_allowed(use, offered):
            await self._call(use, offered, arguments)

    async def _is_allowed(self, use: ToolUse, offered: OfferedTool) -> bool:
        known = f"{offered.server}/{offered.name}"
        if known in self._conversation.parameters.allowed_tools:
            return True
        use.state = CallState.ASKED
        self._on_change()
        decision = await self._approvals.wait(use)
        if decision is Decision.ALWAYS:
            parameters = self._conversation.parameters
            allowed = tuple(dict.fromkeys([*parameters.allowed_tools, known]))
            self._conversation.parameters = msgspec.structs.replace(parameters, allowed_tools=allowed)
        elif decision is Decision.REFUSE:
            self._end(use, CallState.REFUSED, "The user refused this call. Do not repeat it; go on without it.")
            return False
        elif decision is None:
            self._end(use, CallState.REFUSED, "Nobody allowed this call in time.")
            return False
        return True

    async def _call(self, use: ToolUse, offered: OfferedTool, arguments: dict[str, Any]) -> None:
        use.state = CallState.RUNNING
        self._on_change()
        began_s = time.monotonic()
        try:
            reply = await self._toolbox.call(offered.server, offered.name, arguments)
        except MlxManagerError as error:
            reply = ToolReply(text=error.message, is_error=True)
        use.duration_s = time.monotonic() - began_s
        self._end(use, CallState.FAILED if reply.is_error else CallState.DONE, reply.text)

    def _end(self, use: ToolUse, state: CallState, result: str) -> None:
        use.state = state
        use.result = result
        self._on_change()


def _parse(arguments: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
