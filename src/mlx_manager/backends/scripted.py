"""Plays back scripts: for tests, for demonstrations, and for trying a client without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mlx_manager.errors import InvalidRequest, MlxManagerError, ModelNotFound
from mlx_manager.ir import (
    ChoiceEnd,
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    PartDelta,
    PartEnd,
    PartStart,
    PromptReady,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Usage,
    Vectors,
)


@dataclass(frozen=True)
class Pause:
    """Say nothing for a while."""

    seconds: float


Step = Event | Vectors | Tokens | Pause | MlxManagerError
"""What a script is made of: an event, vectors or tokens to send, a pause, or an error to raise."""


_Reply = TypeVar("_Reply", Vectors, Tokens)


class ScriptedBackend:
    """Answers each request with the script of the model it asks for, whatever the prompt."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]], *, name: str = "scripted") -> None:
        self.name = name
        self._scripts = dict(scripts)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Play the script of `request.model`. Raises `ModelNotFound`, and whatever errors the script holds."""
        for step in self._script(request.model):
            match step:
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case MlxManagerError():
                    raise step.with_traceback(None)
                case Vectors() | Tokens():
                    raise InvalidRequest(f"The script of {request.model!r} generates nothing.", param="model")
                case _:
                    yield step

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """The first vectors in the script of `request.model`. Raises as `generate` does."""
        return await self._first(Vectors, request.model, "embeds")

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """The first tokens in the script of `request.model`. Raises as `generate` does."""
        return await self._first(Tokens, request.model, "tokenizes")

    async def _first(self, kind: type[_Reply], model: str, verb: str) -> _Reply:
        for step in self._script(model):
            if isinstance(step, kind):
                return step
            match step:
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case MlxManagerError():
                    raise step.with_traceback(None)
                case _:
                    break
        raise InvalidRequest(f"The script of {model!r} {verb} nothing.", param="model")

    def _script(self, model: str) -> Sequence[Step]:
        script = self._scripts.get(model)
        if script is None:
            raise ModelNotFound(
                f"There is no model {model!r}. Models here: {', '.join(self._scripts) or 'none'}.", param="model"
            )
        return script


def script_of(texts: Sequence[str], *, num_choices: int = 1, num_prompt_tokens: int = 7) -> tuple[Step, ...]:
    """The events of an ordinary answer in which every choice says `texts`, one token each; choices interleave."""
    choices = range(num_choices)
    return (
        PromptReady(num_prompt_tokens),
        *(PartStart(choice) for choice in choices),
        *(PartDelta(choice, text) for text in texts for choice in choices),
        *(PartEnd(choice) for choice in choices),
        *(ChoiceEnd(choice, FinishReason.STOP) for choice in choices),
        Finished(
            Usage(
                num_prompt_tokens=num_prompt_tokens,
                num_cached_tokens=0,
                num_completion_tokens=len(texts) * num_choices,
            )
        ),
    )
