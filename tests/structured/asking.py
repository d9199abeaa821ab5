"""Questions to the starter model in a real worker, many at the same time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import MlxManagerError
from mlx_manager.hub import STARTER_NAME, Inventory
from mlx_manager.ir import (
    Answer,
    ChatPrompt,
    GenerationRequest,
    Grammar,
    GrammarKind,
    Message,
    PartKind,
    Role,
    Sampling,
    TextContent,
    fold,
)
from mlx_manager.pool import ModelPool

MAX_TOKENS = 480


@asynccontextmanager
async def starter_backend(starter_home: Path) -> AsyncIterator[LocalBackend]:
    """The starter model in one worker."""
    options = LoadOptions(kv_budget_bytes=512 * 1024**2, state_folder=str(starter_home))
    pool = ModelPool(Inventory(starter_home).entries, default_model=STARTER_NAME, options=options, spare_delay_s=600.0)
    try:
        await pool.start()
        yield LocalBackend(pool)
    finally:
        await pool.close()


def question(
    request_id: str,
    text: str,
    grammar: Grammar | None = None,
    *,
    num_choices: int = 1,
    max_tokens: int = MAX_TOKENS,
    **sampling: Any,
) -> GenerationRequest:
    """A chat of one message; greedy unless `sampling` says otherwise."""
    return GenerationRequest(
        request_id=request_id,
        model=STARTER_NAME,
        prompt=ChatPrompt(messages=(Message(role=Role.USER, content=(TextContent(text),)),)),
        sampling=Sampling(**{"temperature": 0.0, "max_tokens": max_tokens, "grammar": grammar} | sampling),
        num_choices=num_choices,
    )


def of_schema(schema: object) -> Grammar:
    return Grammar(kind=GrammarKind.JSON_SCHEMA, param="guided_json", text=json.dumps(schema))


def of_regex(pattern: str) -> Grammar:
    return Grammar(kind=GrammarKind.REGEX, param="guided_regex", text=pattern)


def of_lark(text: str) -> Grammar:
    return Grammar(kind=GrammarKind.LARK, param="guided_grammar", text=text)


async def ask(backend: LocalBackend, request: GenerationRequest) -> Answer:
    return await fold(backend.generate(request), request.num_choices)


async def ask_all(
    backend: LocalBackend, requests: Mapping[str, GenerationRequest]
) -> dict[str, Answer | MlxManagerError]:
    """All at the same time, by key; the error of those that are refused."""
    answers = await asyncio.gather(*(ask(backend, request) for request in requests.values()), return_exceptions=True)
    asked: dict[str, Answer | MlxManagerError] = {}
    for key, answer in zip(requests, answers, strict=True):
        if not isinstance(answer, Answer | MlxManagerError):
            raise answer
        asked[key] = answer
    return asked


def text_of(answer: Answer | MlxManagerError, choice: int = 0) -> str:
    """What a choice says; fails for a request that was refused."""
    assert isinstance(answer, Answer), answer
    return answer.choices[choice].text_of(PartKind.TEXT)
