"""The conversations of every account, and the replies that run: they go on when a page is closed."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import defaultdict
from contextlib import aclosing

from mlx_manager.errors import MlxManagerError
from mlx_manager.gateway import Asker, Gateway
from mlx_manager.ir import (
    Caller,
    Finished,
    GenerationRequest,
    Origin,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    Sampling,
    Thinking,
    enter_origin,
)
from mlx_manager.ui.conversation import Conversation, ReplyFigures, Turn, TurnState

_MOST_KEPT = 50


class Chats:
    """In memory: a restart of the server forgets them. Nobody reaches the conversations of another account."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ids = itertools.count(1)
        self._by_user: defaultdict[int | None, list[Conversation]] = defaultdict(list)
        self._running: dict[Turn, asyncio.Task[None]] = {}

    def of(self, viewer: Caller) -> list[Conversation]:
        """The conversations of one account, the one that was changed last first."""
        return sorted(self._by_user[viewer.user_id], key=lambda one: one.changed_unix_s, reverse=True)

    def begin(self, viewer: Caller) -> Conversation:
        """A new one; beyond 50 the oldest goes."""
        kept = self.of(viewer)[: _MOST_KEPT - 1]
        made = Conversation(next(self._ids))
        self._by_user[viewer.user_id] = [made, *kept]
        return made

    def remove(self, viewer: Caller, conversation: Conversation) -> None:
        """Delete one, and stop what runs in it."""
        for turn in conversation.path():
            self.stop(turn)
        self._by_user[viewer.user_id].remove(conversation)

    def answer(
        self, viewer: Caller, conversation: Conversation, reply: Turn, sampling: Sampling, thinking: Thinking
    ) -> None:
        """Have `reply` written."""
        request = GenerationRequest(
            request_id=f"chat-{secrets.token_hex(12)}",
            model=reply.model or "",
            prompt=conversation.prompt_for(reply, thinking),
            sampling=sampling,
        )
        task = asyncio.create_task(self._write(viewer, reply, request))
        self._running[reply] = task
        task.add_done_callback(lambda _: self._forget(reply))

    def stop(self, reply: Turn) -> None:
        """End a reply; what there is of it stays."""
        task = self._running.get(reply)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop all replies."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, reply: Turn) -> None:
        self._running.pop(reply, None)
        if reply.state is TurnState.RUNNING:
            # stopped before its first step
            reply.state = TurnState.STOPPED
            reply.version += 1

    async def _write(self, viewer: Caller, reply: Turn, request: GenerationRequest) -> None:
        enter_origin(Origin(request_id=f"req_{secrets.token_hex(12)}", path="/chat", user=viewer.user_name))
        gateway = self._gateway.on_behalf_of(Asker(caller=viewer))
        pen = _Pen(reply)
        try:
            async with aclosing(gateway.generate(request, http_request_id=request.request_id)) as events:
                async for event in events:
                    pen.take(event)
            reply.state = TurnState.DONE
        except MlxManagerError as error:
            reply.state = TurnState.FAILED
            reply.error = error.message
        except asyncio.CancelledError:
            reply.state = TurnState.STOPPED
            raise
        except Exception:
            reply.state = TurnState.FAILED
            reply.error = "Something went wrong inside the server; its log says more."
            raise
        finally:
            pen.finish()


class _Pen:
    """Writes the events of one answer into its turn."""

    def __init__(self, reply: Turn) -> None:
        self._reply = reply
        self._kind = PartKind.TEXT
        self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._thinking_from_s: float | None = None
        self._thinking_s: float | None = None
        self._finished: Finished | None = None

    def take(self, event: object) -> None:
        """Write down what `event` says."""
        match event:
            case PartStart():
                self._kind = event.kind
                if event.kind is PartKind.REASONING:
                    self._thinking_from_s = time.monotonic()
                elif event.kind is PartKind.TOOL_CALL:
                    self._reply.text += f"\n\n`{event.tool_name}` "
            case PartDelta():
                if event.text:
                    self._first_s = self._first_s or time.monotonic()
                if self._kind is PartKind.REASONING:
                    self._reply.reasoning += event.text
                else:
                    self._reply.text += event.text
            case PartEnd():
                self._end_thinking()
            case Finished():
                self._finished = event
        self._reply.version += 1

    def finish(self) -> None:
        """Write down what it took."""
        self._end_thinking()
        usage = self._finished.usage if self._finished else None
        elapsed_s = time.monotonic() - self._first_s if self._first_s is not None else 0.0
        self._reply.figures = ReplyFigures(
            ttft_s=self._first_s - self._began_s if self._first_s is not None else None,
            thinking_s=self._thinking_s,
            tokens_per_s=usage.num_completion_tokens / elapsed_s if usage and elapsed_s > 0.01 else None,
            num_prompt_tokens=usage.num_prompt_tokens if usage else None,
            num_cached_tokens=usage.num_cached_tokens if usage else None,
            num_completion_tokens=usage.num_completion_tokens if usage else None,
        )
        self._reply.version += 1

    def _end_thinking(self) -> None:
        if self._thinking_from_s is not None:
            self._thinking_s = (self._thinking_s or 0.0) + time.monotonic() - self._thinking_from_s
            self._thinking_from_s = None
