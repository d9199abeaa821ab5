"""A conversation as a tree of turns: editing and asking again make branches, and one path through it is shown."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from mlx_manager.ir import ChatPrompt, Message, Role, TextContent, Tool, ToolCall
from mlx_manager.ui.attachments import Attachment
from mlx_manager.ui.chat_parameters import ChatParameters

_MOST_TITLE_CHARS = 60
UNNAMED = "New conversation"


class TurnState(StrEnum):
    """How far a turn is."""

    DONE = "done"
    RUNNING = "running"
    STOPPED = "stopped"
    """By whoever asked, or by the end of the server."""
    FAILED = "failed"


@dataclass(frozen=True)
class ReplyFigures:
    """What a reply took. Durations in seconds; None where it did not get that far."""

    ttft_s: float | None = None
    tokens_per_s: float | None = None
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    num_completion_tokens: int | None = None


class CallState(StrEnum):
    """How far a tool call is."""

    WRITTEN = "written"
    """The model writes it, or has written it; nothing was done."""
    ASKED = "asked"
    """Somebody has to allow it."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """The tool, or its server, says so."""
    REFUSED = "refused"


@dataclass(eq=False)
class ToolUse:
    """One call of a tool in a reply, step by step."""

    call_id: str
    name: str
    """As the model knows it."""
    server: str = ""
    """Whose tool it is; empty where there is no such tool."""
    arguments: str = ""
    """The text of a JSON object."""
    state: CallState = CallState.WRITTEN
    result: str = ""
    """What the model is told."""
    duration_s: float | None = None

    @property
    def told(self) -> str:
        """What stands in the prompt for its result."""
        return self.result or ("" if self.state is CallState.DONE else "This call was not made.")


@dataclass(eq=False)
class Round:
    """What a model says at a time: what it thinks, its words, and the tools that it calls."""

    reasoning: str = ""
    reasoning_signature: str = ""
    thinking_s: float | None = None
    """How long it thought, once it has ended."""
    text: str = ""
    calls: list[ToolUse] = field(default_factory=list)

    def messages(self, *, with_reasoning: bool) -> Iterator[Message]:
        """For the prompt: what the model said, and what its calls gave."""
        yield Message(
            role=Role.ASSISTANT,
            content=(TextContent(self.text),) if self.text else (),
            reasoning=self.reasoning if with_reasoning else "",
            reasoning_signature=self.reasoning_signature if with_reasoning else "",
            tool_calls=tuple(
                ToolCall(call_id=use.call_id, name=use.name, arguments=use.arguments or "{}") for use in self.calls
            ),
        )
        for use in self.calls:
            yield Message(
                role=Role.TOOL,
                content=(TextContent(use.told),),
                name=use.name,
                tool_call_id=use.call_id,
                is_error=use.state is not CallState.DONE,
            )


@dataclass(eq=False)
class Turn:
    """What somebody says. A reply grows while it runs: `version` tells that it has changed."""

    number: int
    """Within its conversation; 0 is the root."""
    role: Role
    said: str = ""
    """By the user."""
    attachments: tuple[Attachment, ...] = ()
    rounds: list[Round] = field(default_factory=list)
    """Of a reply."""
    model: str | None = None
    """The name that was asked for."""
    answered_by: str | None = None
    """Who answered: a backend and its model; None before anybody was asked."""
    fallback_reason: str | None = None
    """Why somebody was passed over before: the code of an error."""
    state: TurnState = TurnState.DONE
    error: str | None = None
    figures: ReplyFigures = ReplyFigures()
    parent: Turn | None = None
    children: list[Turn] = field(default_factory=list)
    chosen: int = 0
    """The child that the path goes on with."""
    version: int = 0

    @property
    def text(self) -> str:
        """All its words."""
        return self.said or "\n\n".join(one.text.strip() for one in self.rounds if one.text.strip())

    @property
    def siblings(self) -> list[Turn]:
        """The branches beside it, itself included."""
        return self.parent.children if self.parent is not None else [self]

    def messages(self, *, with_tools: bool = False) -> Iterator[Message]:
        """For the prompt. Files come before the words that are about them.

        Calls and their results are in it `with_tools` only: some providers refuse them where no tools are offered.
        """
        if with_tools and any(one.calls for one in self.rounds):
            for one in self.rounds:
                yield from one.messages(with_reasoning=False)
            return
        pieces = [attachment.as_content() for attachment in self.attachments]
        texts = [piece.text for piece in pieces if isinstance(piece, TextContent)]
        seen = [piece for piece in pieces if not isinstance(piece, TextContent)]
        yield Message(role=self.role, content=(*seen, TextContent("\n\n".join([*texts, self.text]))))


class Conversation:
    """One conversation of one account. `shape` changes whenever another path is to be shown."""

    def __init__(self, user_id: int | None, id_: str = "") -> None:
        self.user_id = user_id
        self.id = id_ or secrets.token_hex(10)
        self.title = ""
        """Empty until something is said: what it begins with, until somebody gives it another."""
        self.parameters = ChatParameters()
        self.created_unix_s = self.changed_unix_s = time.time()
        self.shape = 0
        self.is_removed = False
        self.save_error: str | None = None
        """Why it is not kept as it is; written by whoever keeps it."""
        self.root = Turn(0, Role.SYSTEM)
        self._numbers = itertools.count(1)

    def restore(self, turns: Iterator[Turn]) -> None:
        """Take up `turns` again, which know their parents, in the order of their numbers."""
        last = 0
        for turn in turns:
            if turn.parent is not None:
                turn.parent.children.append(turn)
            last = turn.number
        self._numbers = itertools.count(last + 1)

    def turns(self) -> Iterator[Turn]:
        """All of them, in no order; the root too."""
        waiting = [self.root]
        while waiting:
            turn = waiting.pop()
            yield turn
            waiting += turn.children

    def path(self) -> list[Turn]:
        """The turns that are shown, in order."""
        return list(self._walk())

    def say(self, text: str, attachments: tuple[Attachment, ...] = ()) -> Turn:
        """Go on at the end of the path with a message of the user."""
        if not self.title:
            self.rename("", text or next((one.name for one in attachments), ""))
        return self._add(self._last(), Turn(next(self._numbers), Role.USER, text, attachments))

    def edit(self, turn: Turn, text: str) -> Turn:
        """Say it otherwise: a branch beside `turn`, with the same files."""
        assert turn.parent is not None
        return self._add(turn.parent, Turn(next(self._numbers), turn.role, text, turn.attachments))

    def begin_reply(self, asked: Turn, model: str) -> Turn:
        """A reply of `model` to `asked`, beside those that are there."""
        reply = Turn(next(self._numbers), Role.ASSISTANT, model=model, state=TurnState.RUNNING, rounds=[Round()])
        return self._add(asked, reply)

    def choose(self, turn: Turn, step: int) -> None:
        """Show the branch `step` beside `turn`."""
        if turn.parent is not None:
            turn.parent.chosen = (turn.siblings.index(turn) + step) % len(turn.siblings)
            self.shape += 1

    def rename(self, title: str, beginning: str | None = None) -> None:
        """Call it `title`; without one, what it begins with."""
        if beginning is None:
            beginning = self.root.children[0].said if self.root.children else ""
        lines = title.strip() or beginning.strip()
        self.title = lines.split("\n")[0][:_MOST_TITLE_CHARS].strip() or UNNAMED

    def prompt_for(self, reply: Turn, tools: tuple[Tool, ...] = ()) -> ChatPrompt:
        """Everything that was said before the last round of `reply`."""
        said: list[Turn] = []
        turn = reply.parent
        while turn is not None and turn.parent is not None:
            said.append(turn)
            turn = turn.parent
        messages = [message for turn in reversed(said) for message in turn.messages(with_tools=bool(tools))]
        for one in reply.rounds[:-1]:
            # what it thought before a call belongs to the same answer
            messages += one.messages(with_reasoning=True)
        system_prompt = self.parameters.system_prompt.strip()
        if system_prompt:
            messages.insert(0, Message(role=Role.SYSTEM, content=(TextContent(system_prompt),)))
        return ChatPrompt(messages=tuple(messages), tools=tools, thinking=self.parameters.thinking())

    def _walk(self) -> Iterator[Turn]:
        turn = self.root
        while turn.children:
            turn = turn.children[min(turn.chosen, len(turn.children) - 1)]
            yield turn

    def _last(self) -> Turn:
        path = self.path()
        return path[-1] if path else self.root

    def _add(self, parent: Turn, turn: Turn) -> Turn:
        turn.parent = parent
        parent.children.append(turn)
        parent.chosen = len(parent.children) - 1
        self.changed_unix_s = time.time()
        self.shape += 1
        return turn
