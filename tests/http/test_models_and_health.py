"""The lists and states of models, and what /health and /ready say while they load."""

from __future__ import annotations

import msgspec
import openai
import pytest

from mlx_manager import __version__
from mlx_manager.errors import ErrorInfo
from mlx_manager.ipc import EngineStats, ServingReport
from mlx_manager.pool import ModelState
from tests.http.scripted_server import Serve, Served, Shelf, shelved
from tests.http.test_chat import sdk

REPORT = ServingReport(
    path="paged",
    reason="It agrees with the library's own cache.",
    attention="gather_mm",
    dtype="float32",
    max_context=4096,
    weights_bytes=10,
    kv_bytes_per_token=10,
    kv_cache_bits=8,
    kv_budget_bytes=1000,
    family="Hermes",
    draft_model="small",
    load_s=1.5,
)


def test_sdk_lists_models(served: Served) -> None:
    with sdk(served) as client:
        listed = client.models.list().data
        one = client.models.retrieve("m3")
    assert [(model.id, model.object, model.created, model.owned_by) for model in listed] == [
        ("m", "model", 1_700_000_000, "mlx-manager"),
        ("m3", "model", 1_700_000_000, "mlx-manager"),
    ]
    assert one.id == "m3"


def test_unknown_model_names_those_that_exist(served: Served) -> None:
    with sdk(served) as client, pytest.raises(openai.NotFoundError, match="Models here: m, m3") as caught:
        client.models.retrieve("nobody/knows")
    assert caught.value.code == "model_not_found"


def test_model_names_may_have_slashes(serve: Serve) -> None:
    with sdk(serve({}, Shelf([shelved("org/name")]))) as client:
        assert client.models.retrieve("org/name").id == "org/name"


def test_models_say_how_they_are_served(serve: Serve) -> None:
    cold, loaded = shelved("cold", ModelState.COLD), msgspec.structs.replace(shelved("loaded"), report=REPORT)
    with serve({}, Shelf([cold, loaded])).http() as client:
        first, second = client.get("/v1/models").json()["data"]
    assert (first["state"], first["serving"], first["max_context"]) == ("cold", None, 8192)
    assert (second["state"], second["context_length"], second["quantization"]) == ("ready", 4096, "4-bit")
    assert second["serving"] == {
        "path": "paged",
        "reason": "It agrees with the library's own cache.",
        "attention": "gather_mm",
        "dtype": "float32",
        "kv_cache_bits": 8,
        "kv_bytes_per_token": 10,
        "family": "Hermes",
        "warning": "",
        "draft_model": "small",
    }


def test_an_empty_shelf_is_an_empty_list(serve: Serve) -> None:
    with serve({}).http() as client:
        assert client.get("/v1/models").json() == {"object": "list", "data": []}
        assert client.get("/ready").json()["waiting_for"] == "a model: none is configured"


def test_health_and_ready_follow_a_load(serve: Serve) -> None:
    shelf = Shelf([shelved("m", ModelState.LOADING, stage="reading weights", fraction=0.25)], default_model="m")
    with serve({}, shelf).http() as client:
        health = client.get("/health")
        assert health.status_code == 200
        body = health.json()
        assert (body["status"], body["version"], body["default_model"]) == ("ok", __version__, "m")
        assert 0 <= body["uptime_s"] < 60
        (model,) = body["models"]
        assert (model["id"], model["state"], model["stage"], model["fraction"]) == (
            "m",
            "loading",
            "reading weights",
            0.25,
        )
        waiting = client.get("/ready")
        assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "1")
        assert waiting.json() == {"ready": False, "model": "m", "waiting_for": "the model m: reading weights (25%)"}

        shelf.models = [msgspec.structs.replace(shelved("m"), stats=EngineStats(num_blocks_used=3), worker_pid=5)]
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "model": "m", "waiting_for": None})
        model = client.get("/health").json()["models"][0]
        assert (model["stats"]["num_blocks_used"], model["worker_pid"]) == (3, 5)


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/metrics"])
def test_a_check_may_ask_for_the_head_alone(served: Served, path: str) -> None:
    with served.http() as http:
        head, whole = http.head(path), http.get(path)
    assert head.status_code == whole.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_failed_default_model_says_why(serve: Serve) -> None:
    error = ErrorInfo(code="model_load_failed", message="config.json is missing")
    failed = msgspec.structs.replace(shelved("m", ModelState.FAILED), error=error)
    with serve({}, Shelf([failed], default_model="m")).http() as client:
        assert client.get("/ready").json()["waiting_for"] == "the model m: config.json is missing"
        assert client.get("/health").json()["models"][0]["error"]["code"] == "model_load_failed"


@pytest.mark.parametrize("state", [ModelState.COLD, ModelState.DRAINING])
def test_default_model_out_of_memory_is_not_ready(serve: Serve, state: ModelState) -> None:
    with serve({}, Shelf([shelved("m", state)], default_model="m")).http() as client:
        assert client.get("/ready").json()["waiting_for"] == f"the model m: it is {state.value}"


def test_default_model_that_is_gone(serve: Serve) -> None:
    with serve({}, Shelf(default_model="m")).http() as client:
        assert client.get("/ready").json()["waiting_for"] == "the model m: it is not on this machine"
