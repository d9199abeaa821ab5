"""Requests made up from our own OpenAPI document: whatever they hold, nothing of ours breaks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.schemas import APIOperation

from mlx_manager.app import create_app
from mlx_manager.backends.scripted import Step, script_of
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import Tokens, Vectors
from tests.http.scripted_server import HELLO, Recorder, Served, Shelf, running, shelved

NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
"""Per route; `make fuzz` asks for more."""
_SCRIPTS: dict[str, tuple[Step, ...]] = {
    "m": script_of(HELLO),
    "e": (Vectors(num_dimensions=1, values=np.ones(1, "<f4").tobytes(), num_prompt_tokens=1),),
    "t": (Tokens(token_ids=(1,), text="a"),),
}
_MODELS = {"/v1/embeddings": "e", "/v1/rerank": "e", "/tokenize": "t", "/detokenize": "t"}
_PREFIXES = ("/v1/", "/tokenize", "/detokenize", "/health", "/ready", "/auth", "/metrics", "/api/")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    loaded = load_settings({}, {"home": str(tmp_path_factory.mktemp("home")), "port": 0})
    with running(loaded, Recorder(_SCRIPTS), Shelf([shelved("m")], default_model="m")) as served:
        yield served


def operations() -> list[APIOperation[Any, Any, Any, Any]]:
    app = create_app(load_settings({}, {"home": Path("no-such-home")}))
    schema = schemathesis.openapi.from_dict(app.openapi())
    results: list[Any] = list(schema.get_all_operations())
    found: list[APIOperation[Any, Any, Any, Any]] = [each.ok() for each in results]
    return [operation for operation in found if operation.path.startswith(_PREFIXES)]


OPERATIONS = operations()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_nothing_breaks(fuzzed: Served, operation: APIOperation[Any, Any, Any, Any]) -> None:
    limits = settings(
        max_examples=NUM_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @given(case=operation.as_strategy(), is_known=st.booleans())
    @limits
    def send(case: Case[Any], is_known: bool) -> None:
        if is_known and isinstance(case.body, dict):
            # or nearly no request would get past its model
            case.body["model"] = _MODELS.get(operation.path, "m")
        answer = case.call(base_url=f"http://127.0.0.1:{fuzzed.port}")
        assert answer.status_code < 500, (answer.status_code, answer.text, case.body)

    send()


def test_the_document_describes_every_body(fuzzed: Served) -> None:
    document = httpx.get(f"http://127.0.0.1:{fuzzed.port}/openapi.json").json()
    missing = [
        path
        for path, methods in document["paths"].items()
        if path.startswith(("/v1/", "/tokenize", "/detokenize"))
        and not path.endswith("/cancel")
        and "post" in methods
        and "requestBody" not in methods["post"]
    ]
    assert missing == []
    assert {"ChatRequest", "ResponsesRequest", "MessagesRequest"} <= set(document["components"]["schemas"])
    assert len(OPERATIONS) > 15
