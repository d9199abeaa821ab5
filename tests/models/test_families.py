"""Every important family answers as the library does, in every situation, on the path that the worker gives it.

`python -m tools.model_table` does the same for every model type there is.
"""

from __future__ import annotations

import pytest

from tests.models.examine import examine
from tests.models.zoo import CONFIGS, model_types

_PAGED = [
    # plain attention
    "llama",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "mixtral",
    "gemma",
    "phi3",
    "granite",
    "smollm3",
    "glm4_moe",
    # windows and sinks
    "gemma3_text",
    "gemma4_text",
    "gpt_oss",
    "cohere2",
    "exaone4",
    "olmo3",
    "ministral3",
    # latent attention
    "deepseek_v2",
    # recurrent and hybrid
    "granitemoehybrid",
    "lfm2",
    "qwen3_next",
    "qwen3_5",
    "mamba",
    "mamba2",
    "falcon_h1",
    "nemotron_h",
    "jamba",
    "minimax",
    "rwkv7",
    "recurrent_gemma",
]
_ANY_PATH = ["gemma2", "gemma3n", "deepseek_v3", "deepseek_v32", "llama4", "kimi_linear", "plamo2"]


@pytest.mark.parametrize("model_type", _PAGED)
def test_is_paged_and_answers_as_the_library_does(model_type: str) -> None:
    row = examine(model_type)
    assert row.not_built == ""
    assert row.mismatches == []
    assert (row.path, row.reason) == ("paged", row.reason)


@pytest.mark.parametrize("model_type", _ANY_PATH)
def test_answers_as_the_library_does(model_type: str) -> None:
    row = examine(model_type)
    assert row.not_built == ""
    assert row.mismatches == []


def test_configurations_are_of_types_that_exist() -> None:
    assert set(CONFIGS) <= set(model_types())
