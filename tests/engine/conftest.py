"""The starter model, loaded once, with mlx-lm's own answers to every prompt."""

from __future__ import annotations

import pytest

from mlx_manager.engine.probe import probe_caches
from mlx_manager.models.loading import LoadedModel
from tests.engine.real_engine import ANSWER, FOLLOW_UP, LONG_ANSWER, Starter, greedy_answer
from tests.engine.real_prompts import LONG_ANSWERED, build_prompts, follow_up


@pytest.fixture(scope="session")
def starter(starter_model: LoadedModel) -> Starter:
    """The starter model with its prompts and the library's answers to them."""
    prompts = build_prompts(starter_model.tokenizer)
    lengths = {name: LONG_ANSWER if name in LONG_ANSWERED else ANSWER for name in prompts}
    said = {name: greedy_answer(starter_model, prompt, lengths[name]) for name, prompt in prompts.items()}
    chat_answer = tuple(token for token in said["chat"][0] if token not in starter_model.eos_token_ids)
    prompts[FOLLOW_UP] = follow_up(starter_model.tokenizer, prompts["chat"] + chat_answer, "And of Italy?")
    said[FOLLOW_UP] = greedy_answer(starter_model, prompts[FOLLOW_UP], ANSWER)
    return Starter(
        loaded=starter_model,
        caches=probe_caches(starter_model.model),
        prompts=prompts,
        answers={name: tokens for name, (tokens, _) in said.items()},
        logprobs={name: logprobs for name, (_, logprobs) in said.items()},
    )
