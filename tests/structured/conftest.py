"""Every question of this room is asked once, together, before its tests look at the answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mlx_manager.errors import MlxManagerError
from mlx_manager.ir import Answer
from tests.structured.asking import ask, ask_all, starter_backend
from tests.structured.calls import CALLS
from tests.structured.questions import BYSTANDERS, QUESTIONS


@pytest.fixture(scope="session")
def answers(starter_home: Path) -> dict[str, Answer | MlxManagerError]:
    """The answers to `QUESTIONS` and `CALLS`, and under "..., alone" those of the bystanders asked one by one."""
    return asyncio.run(_ask_everything(starter_home))


async def _ask_everything(starter_home: Path) -> dict[str, Answer | MlxManagerError]:
    async with starter_backend(starter_home) as backend:
        asked = await ask_all(backend, QUESTIONS | CALLS)
        for name, request in BYSTANDERS.items():
            asked[f"{name}, alone"] = await ask(backend, request)
    return asked
