"""How a model writes its answers: which reasoning format, which tool-call format. Data, named by `models.families`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_manager.ir import PartKind, Tool
from mlx_manager.parsing.cursor import Cursor, Malformed, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter


@dataclass(frozen=True)
class ReasoningFormat:
    """Reasoning between two markers."""

    begin: str = "<think>"
    end: str = "</think>"
    is_implicit: bool = False
    """The model reasons from the first token on and writes no begin marker (some templates have it in the prompt)."""
    is_anywhere: bool = False
    """The begin marker means reasoning in the middle of a text too; otherwise only where no text has come yet."""

    def starts_inside(self, prompt: str) -> bool:
        """Whether an answer to the rendered `prompt` begins as reasoning."""
        ending = prompt.rstrip()
        if ending.endswith(self.begin.rstrip()):
            return True
        return self.is_implicit and not ending.endswith(self.end.rstrip())


Call = tuple[str, Mapping[str, Any]]
"""A tool's name and the arguments it is called with."""
MOST_NAME_CHARACTERS = 256
"""What is longer is no name of a tool or an argument."""


class ToolFormat(ABC):
    """How calls are written: read from text as it comes, and told as a grammar."""

    name: ClassVar[str]
    """What the documentation and the tests call it."""
    begins: tuple[str, ...]
    """Markers, any of which begins one call or a group of calls."""
    begins_bare: ClassVar[str] = ""
    """Characters, any of which may begin a call where no text has come yet."""
    is_enforceable: ClassVar[bool] = True
    """Whether there is a grammar of its calls."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker that may be one special token: a decoder must not drop these."""
        return self.begins

    @abstractmethod
    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """Read what follows `begin`, "" for a bare call. Raises `Malformed` where it is no call."""

    @abstractmethod
    def spell(self, calls: Sequence[Call]) -> str:
        """`calls` as the model writes them, for the history of a conversation whose template leaves calls out."""

    @abstractmethod
    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """Add rules to `writer`; returns what matches well-formed calls of `tools`, and nothing beside them.

        Without `required` any text may stand instead, or before the calls.
        """


class AnswerStyle(ABC):
    """How one model's answers are read."""

    @property
    @abstractmethod
    def markers(self) -> tuple[str, ...]:
        """Every marker that may be one special token: a decoder must not drop these."""

    @property
    @abstractmethod
    def makes_calls(self) -> bool:
        """Whether the model can call tools."""

    @property
    @abstractmethod
    def can_answer_in_a_form(self) -> bool:
        """Whether one grammar can allow both calls and, as the answer, JSON: see `lark`."""

    @property
    @abstractmethod
    def reasoning_end(self) -> str:
        """What ends the reasoning wherever it stands, so that the answer follows; empty where there is none to end."""

    @abstractmethod
    def starts_in_reasoning(self, prompt: str) -> bool:
        """Whether an answer to the rendered `prompt` begins as reasoning, because the template opened it."""

    @abstractmethod
    def read(
        self, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...], *, starts_in_reasoning: bool
    ) -> Reading[None]:
        """Read a whole answer. Raises nothing: what is malformed goes out as text."""

    @abstractmethod
    def lark(
        self,
        tools: tuple[Tool, ...],
        *,
        parallel: bool,
        required: bool,
        special_ids: Mapping[str, int] = {},
        starts_in_reasoning: bool = False,
        may_reason: bool = True,
        form: str = "",
    ) -> str:
        """A grammar in llguidance's Lark for whole answers whose calls are all well-formed calls of `tools`.

        With `required` there is at least one call and no text before it; without it the answer may be text, or text and
        then calls. `form` is the body of a rule: what it matches is then the only text, and stands instead of calls.
        Reasoning may come first. `special_ids`: the ids of the special tokens that `markers` are or
        contain; the rest of them is spelled as text. Raises `ValueError` where the model makes no calls, or the
        parameters of a tool are no JSON schema of an object.
        """


@dataclass(frozen=True)
class MarkedStyle(AnswerStyle):
    """Text with marked reasoning and marked calls in it; either may be absent."""

    reasoning: ReasoningFormat | None = None
    tools: ToolFormat | None = None
    ignored: tuple[str, ...] = ()
    """Markers that say nothing, such as those around the text."""

    @property
    def markers(self) -> tuple[str, ...]:
        """See `AnswerStyle`."""
        reasoning = (self.reasoning.begin, self.reasoning.end) if self.reasoning else ()
        return (*reasoning, *(self.tools.markers if self.tools else ()), *self.ignored)

    @property
    def makes_calls(self) -> bool:
        """See `AnswerStyle`."""
        return self.tools is not None

    @property
    def can_answer_in_a_form(self) -> bool:
        """See `AnswerStyle`. A call that begins as any JSON object does cannot be told from one in time."""
        return self.tools is not None and self.tools.is_enforceable and not self.tools.begins_bare

    @property
    def reasoning_end(self) -> str:
        """See `AnswerStyle`."""
        return f"\n{self.reasoning.end}" if self.reasoning else ""

    def starts_in_reasoning(self, prompt: str) -> bool:
        """See `AnswerStyle`."""
        return self.reasoning is not None and self.reasoning.starts_inside(prompt)

    def read(
        self, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...], *, starts_in_reasoning: bool
    ) -> Reading[None]:
        """See `AnswerStyle`."""
        return _MarkedReader(self, cursor, out, tools).read(starts_in_reasoning)

    def lark(
        self,
        tools: tuple[Tool, ...],
        *,
        parallel: bool,
        required: bool,
        special_ids: Mapping[str, int] = {},
        starts_in_reasoning: bool = False,
        may_reason: bool = True,
        form: str = "",
    ) -> str:
        """See `AnswerStyle`."""
        if self.tools is None:
            raise ValueError("the model makes no calls")
        writer = GrammarWriter(special_ids)
        answer = self.tools.write_calls(writer, tools, parallel=parallel, required=required or bool(form))
        if form and not required:
            answer = f"{answer} | {writer.rule('form', form)}"
        if self.reasoning and starts_in_reasoning:
            writer.until("thoughts", self.reasoning.end)
            answer = f"thoughts GAP ({answer})"
        elif self.reasoning and may_reason:
            writer.until("thoughts", self.reasoning.end)
            answer = f"({writer.marker(self.reasoning.begin)} thoughts GAP)? ({answer})"
        writer.rule("GAP", r"/[ \n]{0,2}/")
        writer.rule("start", answer)
        return writer.text()


class _MarkedReader:
    def __init__(self, style: MarkedStyle, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> None:
        self._reasoning = style.reasoning
        self._format = style.tools if tools else None
        self._cursor = cursor
        self._out = out
        self._tools = tools
        self._begins = self._format.begins if self._format else ()
        self._ignored = style.ignored

    def read(self, starts_in_reasoning: bool) -> Reading[None]:
        if starts_in_reasoning and self._reasoning:
            self._out.marker()
            yield from self._read_reasoning(self._reasoning)
        think = (self._reasoning.begin, self._reasoning.end) if self._reasoning else ()
        while True:
            if self._format and self._format.begins_bare and self._out.is_at_beginning:
                yield from self._cursor.skip_whitespace_into(self._out.text)
                first = yield from self._cursor.peek()
                if first and first in self._format.begins_bare:
                    yield from self._read_calls(self._format, "", PartKind.TEXT)
                    continue
            stop = yield from self._cursor.until((*think, *self._begins, *self._ignored), self._out.text)
            if not stop:
                return
            if self._format and stop in self._begins:
                yield from self._read_calls(self._format, stop, PartKind.TEXT)
            elif stop in self._ignored:
                self._out.ignore_marker()
            elif self._reasoning:
                yield from self._read_think_marker(self._reasoning, stop)

    def _read_think_marker(self, reasoning: ReasoningFormat, stop: str) -> Reading[None]:
        """Where text has come already, a model that writes a marker most likely writes about markers."""
        if not self._out.is_at_beginning and not reasoning.is_anywhere:
            self._out.text(stop)
            return
        self._out.marker()
        if stop == reasoning.begin:
            yield from self._read_reasoning(reasoning)

    def _read_reasoning(self, reasoning: ReasoningFormat) -> Reading[None]:
        """Up to the end marker, or to a call: models forget to close before they call."""
        is_begin_possible = True
        while True:
            stops = (reasoning.end, *self._begins, *((reasoning.begin,) if is_begin_possible else ()))
            stop = yield from self._cursor.until(stops, self._out.reasoning)
            if stop == reasoning.end or not stop:
                self._out.marker()
                return
            if stop == reasoning.begin and self._out.is_at_beginning:
                is_begin_possible = False  # the model repeats the marker that the template had written
            elif self._format and stop in self._begins:
                if (yield from self._read_calls(self._format, stop, PartKind.REASONING)):
                    return
            else:
                self._out.reasoning(stop)

    def _read_calls(self, tool_format: ToolFormat, begin: str, kind: PartKind) -> Reading[bool]:
        self._cursor.mark()
        try:
            yield from tool_format.read_calls(begin, self._cursor, self._out, self._tools)
        except Malformed:
            self._out.hand_back(begin + self._cursor.unmark(), kind)
            return False
        self._cursor.unmark()
        return True
