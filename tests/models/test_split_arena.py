"""A KV budget of a model with windows in some layers, as the worker splits it, holds longer contexts; answers stay."""

from __future__ import annotations

import msgspec
import pytest

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest, TokenEvent
from mlx_manager.engine.sequence import SamplingParams
from tests.models.examine import library_answer
from tests.models.serving import serve
from tests.models.zoo import VOCABULARY_SIZE, build, config_of

STEP = 32
PROMPT = tuple((7 * index + index // 5) % VOCABULARY_SIZE for index in range(700))
OPTIONS = LoadOptions(dtype="float32", max_step_tokens=STEP, max_batch_size=4)


@pytest.mark.parametrize("bits", [0, 8])
@pytest.mark.parametrize("model_type", ["gemma3_text", "gpt_oss"])
def test_a_context_fits_that_did_not_and_is_answered_alike(model_type: str, bits: int) -> None:
    model, config = build(model_type, head_dim=32), {**config_of(model_type), "head_dim": 32}
    layers = serve(model, config, VOCABULARY_SIZE, OPTIONS).whole
    budget_bytes = layers.bytes_per_token * 600
    changed = {"kv_budget_bytes": budget_bytes, "kv_cache_bits": bits}
    path = serve(model, config, VOCABULARY_SIZE, msgspec.structs.replace(OPTIONS, **changed)).whole
    assert path.slots is not None
    engine = Engine(
        path.runner, EngineConfig(num_blocks=path.num_blocks, max_step_tokens=STEP, max_batch_size=4, slots=path.slots)
    )
    num_whole = budget_bytes // path.bytes_per_token
    assert num_whole < engine.capacity_tokens
    assert bits or num_whole < len(PROMPT) + 12 <= engine.capacity_tokens
    engine.add(
        EngineRequest(
            request_id="long",
            prompt_token_ids=PROMPT,
            params=(SamplingParams(temperature=0.0),),
            max_output_tokens=12,
        )
    )
    events = []
    while engine.has_work:
        events += engine.step()
        assert engine.arena_bytes <= budget_bytes
    tokens = [event.chosen.token_id for event in events if isinstance(event, TokenEvent)]
    if bits == 0:
        assert tuple(tokens) == library_answer(model, PROMPT).tokens
    assert len(tokens) == 12


def test_a_disk_cache_keeps_blocks_whole() -> None:
    options = msgspec.structs.replace(OPTIONS, kv_budget_bytes=1 << 20, disk_cache_bytes=1 << 20)
    path = serve(build("gemma3_text"), config_of("gemma3_text"), VOCABULARY_SIZE, options).whole
    assert path.slots is None
