"""The starter model, loaded once, with mlx-lm's own answers to every prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.engine.probe import probe_caches
from mlx_manager.models.loading import is_cpu_backend, load_text_model
from tests.engine.real_engine import ANSWER, FOLLOW_UP, LONG_ANSWER, Starter, greedy_answer
from tests.engine.real_prompts import LONG_ANSWERED, build_prompts, follow_up


@pytest.fixture(scope="session")
def starter(starter_folder: Path) -> Starter:
    """In float32 everywhere, so that rounding stays far from the distances between tokens."""
    entry = ModelEntry(
        name=starter_folder.name,
        path=str(starter_folder),
        created_unix_s=0,
        size_bytes=0,
        architecture="llama",
        quantization="4-bit",
        max_context=None,
    )
    options = LoadOptions(dtype="auto" if is_cpu_backend() else "float32")
    loaded = load_text_model(entry, options, lambda stage, fraction: None)
    prompts = build_prompts(loaded.tokenizer)
    lengths = {name: LONG_ANSWER if name in LONG_ANSWERED else ANSWER for name in prompts}
    said = {name: greedy_answer(loaded, prompt, lengths[name]) for name, prompt in prompts.items()}
    chat_answer = tuple(token for token in said["chat"][0] if token not in loaded.eos_token_ids)
    prompts[FOLLOW_UP] = follow_up(loaded.tokenizer, prompts["chat"] + chat_answer, "And of Italy?")
    said[FOLLOW_UP] = greedy_answer(loaded, prompts[FOLLOW_UP], ANSWER)
    return Starter(
        loaded=loaded,
        caches=probe_caches(loaded.model),
        prompts=prompts,
        answers={name: tokens for name, (tokens, _) in said.items()},
        logprobs={name: logprobs for name, (_, logprobs) in said.items()},
    )
