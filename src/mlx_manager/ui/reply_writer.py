"""Has one reply written: the model is asked, its tools are called, and it is asked again, a bounded number of times."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from mlx_manager.errors import MlxManagerError
from mlx_manager.gateway import FALLBACK_NOTE, Asker, Gateway
from mlx_manager.ir import Caller, ChatPrompt, GenerationRequest, Origin, enter_origin
from mlx_manager.ui.chat_pen import Pen
from mlx_manager.ui.chat_tools import ToolRun
from mlx_manager.ui.conversation import Conversation, Turn, TurnState

MOST_ROUNDS = 10
"""How often a model may call tools for one reply."""


@dataclass(frozen=True)
class ReplyWriter:
    """One reply of one conversation. `on_change` hears of every event and every step of a call."""

    gateway: Gateway
    viewer: Caller
    conversation: Conversation
    reply: Turn
    tools: ToolRun
    on_change: Callable[[], None]

    async def write(self) -> None:
        """Write all of it. The reply says how it ended; cancelling this stops it."""
        reply = self.reply
        enter_origin(Origin(request_id=f"req_{secrets.token_hex(12)}", path="/chat", user=self.viewer.user_name))
        asker = Asker(caller=self.viewer)
        pen = Pen(reply)
        try:
            await self._converse(self.gateway.on_behalf_of(asker), asker, pen)
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
            self._note_answerer(asker)
            pen.finish()

    async def _converse(self, gateway: Gateway, asker: Asker, pen: Pen) -> None:
        offered = await self.tools.offer()
        tools = tuple(one.tool for one in offered)
        for _ in range(MOST_ROUNDS):
            await self._ask(gateway, self.conversation.prompt_for(self.reply, tools), pen)
            self._note_answerer(asker)
            calls = self.reply.rounds[-1].calls
            if not calls:
                return
            await self.tools.run(calls)
            pen.begin_round()
        self.reply.error = f"It called tools {MOST_ROUNDS} times in a row, and was stopped there."

    async def _ask(self, gateway: Gateway, prompt: ChatPrompt, pen: Pen) -> None:
        request = GenerationRequest(
            request_id=f"chat-{secrets.token_hex(12)}",
            model=self.reply.model or "",
            prompt=prompt,
            sampling=self.conversation.parameters.sampling(),
        )
        pen.note_asked()
        async with aclosing(gateway.generate(request, http_request_id=request.request_id)) as events:
            async for event in events:
                pen.take(event)
                self.on_change()

    def _note_answerer(self, asker: Asker) -> None:
        self.reply.answered_by = next(iter(asker.answered_by), None)
        self.reply.fallback_reason = asker.notes.get(FALLBACK_NOTE)
