"""Scripts for models that call tools: what they say depends on what their calls gave."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from mlx_manager.backends.scripted import Step
from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Role,
    Usage,
)
from tests.http.scripted_server import Recorder

FINISHED = Finished(Usage(num_prompt_tokens=7, num_cached_tokens=3, num_completion_tokens=12))


def calls(*asked: tuple[str, str]) -> tuple[Step, ...]:
    """A script that thinks and calls tools, each with the text of its arguments."""
    parts: list[Step] = []
    for number, (name, arguments) in enumerate(asked):
        parts += (
            PartStart(0, PartKind.TOOL_CALL, f"call_{number}", name),
            PartDelta(0, arguments),
            PartEnd(0),
        )
    thoughts = (PartStart(0, PartKind.REASONING), PartDelta(0, "A tool knows."), PartEnd(0))
    return (PromptReady(7), *thoughts, *parts, ChoiceEnd(0, FinishReason.TOOL_CALLS), FINISHED)


def says(text: str) -> tuple[Event, ...]:
    """A script that says `text`."""
    return (PromptReady(7), PartStart(0), PartDelta(0, text), PartEnd(0), ChoiceEnd(0, FinishReason.STOP), FINISHED)


class CallingModels(Recorder):
    """The script of a model until tools have answered; then a text that repeats what the last ones said.

    A model whose name begins with "stubborn" goes on calling.
    """

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The script's events."""
        assert isinstance(request.prompt, ChatPrompt)
        told: Sequence[str] = [each.text for each in request.prompt.messages if each.role is Role.TOOL]
        if not told or request.prompt.messages[-1].role is not Role.TOOL or request.model.startswith("stubborn"):
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    yield event
            return
        self.requests.append(request)
        for step in says("They said: " + "; ".join(told)):
            yield step
