"""What is particular to the models of one family, as data; the table of them is in `table`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_manager.parsing import AnswerStyle, ReasoningFormat, ToolFormat

THINK = ReasoningFormat()


@dataclass(frozen=True)
class ThinkingSwitch:
    """The template variable that turns thinking on and off, and its values for the two."""

    variable: str
    on: Any = True
    off: Any = False


ENABLE_THINKING = ThinkingSwitch("enable_thinking")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One way to prompt models and to read their answers."""

    name: str
    model_types: frozenset[str] = frozenset()
    """Of the config, those that such models come with."""
    marks: str = ""
    """A pattern found in their chat templates; "" where the model type alone tells."""
    tools: ToolFormat | None = None
    """How calls are written when the template shows tools; None where no template of the family does.

    Under a template that shows none, tools are described in the form of Hermes, and calls are written in it.
    """
    tools_prompt: str = ""
    """How the makers say that tools are to be described where the template shows none, in `tools`' own form.

    `{tools}` stands for the descriptions, each of them as `tool_prompt` says.
    """
    tool_prompt: str = ""
    """One description: `{name}`, `{description}`, `{parameters}`, `{function}` for all of them as JSON."""
    reasoning: tuple[ReasoningFormat, ...] = ()
    """The one whose markers are in the template or the vocabulary holds; models of a family that think have one."""
    ignored: tuple[str, ...] = ()
    """Markers that say nothing, such as those around the text."""
    style: AnswerStyle | None = None
    """In place of `tools`, `reasoning` and `ignored`, where answers are not text with markers in it."""
    stop_tokens: tuple[str, ...] = ()
    """Tokens that end an answer, beside those the model's own files name; those that a vocabulary lacks are skipped."""
    thinking: tuple[ThinkingSwitch, ...] = (ENABLE_THINKING,)
    """All are set: templates look at the one they know."""
    reasoning_key: str = "reasoning_content"
    """Under which name the template looks for what the assistant thought."""
    tools_variable: str = "tools"
    """Under which name the template looks for tools; "" where it wants their text in the system message's `tools`."""
    dates: Mapping[str, str] = field(default_factory=dict)
    """Variables that hold today's date, with its format for strftime; without them templates tell an old one."""
    image_token: str = ""
    """What stands for a picture in a rendered prompt."""


GENERIC = Family(name="generic", reasoning=(THINK,))
"""A model of which nothing is known."""
