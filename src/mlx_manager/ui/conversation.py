"""A conversation as a tree of turns: editing and asking again make branches, and one path through it is shown."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from mlx_manager.ir import ChatPrompt, Content, ImageContent, Message, Role, TextContent, Thinking

_MOST_TITLE_CHARS = 60


class TurnState(StrEnum):
    """How far a turn is."""

    DONE = "done"
    RUNNING = "running"
    STOPPED = "stopped"
    """By whoever asked."""
    FAILED = "failed"


@dataclass(frozen=True)
class AttachedFile:
    """A text file that goes along with a message."""

    name: str
    text: str


@dataclass(frozen=True)
class ReplyFigures:
    """What a reply took. Durations in seconds; None where it did not get that far."""

    ttft_s: float | None = None
    thinking_s: float | None = None
    tokens_per_s: float | None = None
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    num_completion_tokens: int | None = None


@dataclass(eq=False)
class Turn:
    """What somebody says. A reply grows while it runs: `version` tells that it has changed."""

    id: int
    role: Role
    text: str = ""
    images: tuple[ImageContent, ...] = ()
    files: tuple[AttachedFile, ...] = ()
    reasoning: str = ""
    model: str | None = None
    """Who answers."""
    state: TurnState = TurnState.DONE
    error: str | None = None
    figures: ReplyFigures = ReplyFigures()
    parent: Turn | None = None
    children: list[Turn] = field(default_factory=list)
    chosen: int = 0
    """The child that the path goes on with."""
    version: int = 0

    @property
    def siblings(self) -> list[Turn]:
        """The branches beside it, itself included."""
        return self.parent.children if self.parent is not None else [self]

    def as_message(self) -> Message:
        """For the prompt. Files come before the words that are about them."""
        files = [f"File {file.name}:\n```\n{file.text}\n```" for file in self.files]
        words = "\n\n".join([*files, self.text])
        content: tuple[Content, ...] = (*self.images, TextContent(words))
        return Message(role=self.role, content=content)


class Conversation:
    """One conversation of one account. `shape` changes whenever another path is to be shown."""

    def __init__(self, id_: int) -> None:
        self.id = id_
        self.title = ""
        self.system_prompt = ""
        self.changed_unix_s = time.time()
        self.shape = 0
        self._ids = itertools.count(1)
        self._root = Turn(0, Role.SYSTEM)

    @property
    def name(self) -> str:
        """Its title, or what it begins with."""
        first = self._root.children[0].text if self._root.children else ""
        return self.title or first.strip().split("\n")[0][:_MOST_TITLE_CHARS] or "New conversation"

    def path(self) -> list[Turn]:
        """The turns that are shown, in order."""
        return list(self._walk())

    def say(self, text: str, images: tuple[ImageContent, ...] = (), files: tuple[AttachedFile, ...] = ()) -> Turn:
        """Go on at the end of the path with a message of the user."""
        return self._add(self._last(), Turn(next(self._ids), Role.USER, text, images, files))

    def edit(self, turn: Turn, text: str) -> Turn:
        """Say it otherwise: a branch beside `turn`, with the same pictures and files."""
        assert turn.parent is not None
        return self._add(turn.parent, Turn(next(self._ids), turn.role, text, turn.images, turn.files))

    def begin_reply(self, asked: Turn, model: str) -> Turn:
        """A reply of `model` to `asked`, beside those that are there."""
        reply = Turn(next(self._ids), Role.ASSISTANT, model=model, state=TurnState.RUNNING)
        return self._add(asked, reply)

    def choose(self, turn: Turn, step: int) -> None:
        """Show the branch `step` beside `turn`."""
        if turn.parent is not None:
            turn.parent.chosen = (turn.siblings.index(turn) + step) % len(turn.siblings)
            self.shape += 1

    def prompt_for(self, reply: Turn, thinking: Thinking) -> ChatPrompt:
        """Everything that was said before `reply`."""
        said: list[Turn] = []
        turn = reply.parent
        while turn is not None and turn.parent is not None:
            said.append(turn)
            turn = turn.parent
        messages = [turn.as_message() for turn in reversed(said)]
        if self.system_prompt.strip():
            system = Message(role=Role.SYSTEM, content=(TextContent(self.system_prompt.strip()),))
            messages.insert(0, system)
        return ChatPrompt(messages=tuple(messages), thinking=thinking)

    def _walk(self) -> Iterator[Turn]:
        turn = self._root
        while turn.children:
            turn = turn.children[turn.chosen]
            yield turn

    def _last(self) -> Turn:
        path = self.path()
        return path[-1] if path else self._root

    def _add(self, parent: Turn, turn: Turn) -> Turn:
        turn.parent = parent
        parent.children.append(turn)
        parent.chosen = len(parent.children) - 1
        self.changed_unix_s = time.time()
        self.shape += 1
        return turn
