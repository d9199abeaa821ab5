"""One family for every kind of cache answers as the library does, in every situation, on the path the worker gives it.

`python -m tools.model_table` does the same for every model type there is.
"""

from __future__ import annotations

import pytest

from tests.models.examine import examine
from tests.models.zoo import CONFIGS, model_types

_PAGED = [
    # full attention
    "llama",
    "mixtral",
    # learned positions
    "gpt_bigcode",
    # windows, sinks, capped scores, shared keys
    "gemma2",
    "gemma3_text",
    "gemma3n",
    "gemma4_text",
    "gpt_oss",
    "ministral3",
    # latent attention
    "deepseek_v3",
    # recurrent and hybrid
    "granitemoehybrid",
    "lfm2",
    "qwen3_next",
    "mamba2",
    "falcon_h1",
    "kimi_linear",
]
_ANY_PATH = ["deepseek_v32", "llama4"]


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
