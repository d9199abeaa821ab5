"""Requests made up from our own OpenAPI document: whatever they hold, nothing of ours breaks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.schemas import APIOperation

from mlx_manager.api.people import KeyChange, UserChange
from mlx_manager.api.providers import ProviderChange
from mlx_manager.api.routes import RouteChange, RouteQuestion
from mlx_manager.app import create_app
from mlx_manager.backends.scripted import Step, script_of
from mlx_manager.catalog.settings import SETTINGS, load_settings
from mlx_manager.ir import Tokens, Vectors
from mlx_manager.storage.private_files import read_local_token
from tests.http.scripted_server import HELLO, Recorder, Served, Shelf, running, shelved

IS_LONG = "FUZZ_EXAMPLES" in os.environ
NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
"""Per route; `make fuzz` asks for more."""
_SCRIPTS: dict[str, tuple[Step, ...]] = {
    "m": script_of(HELLO),
    "e": (Vectors(num_dimensions=1, values=np.ones(1, "<f4").tobytes(), num_prompt_tokens=1),),
    "t": (Tokens(token_ids=(1,), text="a"),),
}
_MODELS = {"/v1/embeddings": "e", "/v1/rerank": "e", "/tokenize": "t", "/detokenize": "t"}
_PREFIXES = ["/v1/", "/tokenize", "/detokenize", "/health", "/ready", "/auth", "/metrics", "/api/"]
if IS_LONG:
    # their fields and queries are gone through one by one below, which takes less time and finds more
    _PREFIXES.append("/admin/")
_LEFT_OUT = ("/admin/hub/", "/admin/downloads", "/admin/requests/live")
"""What asks a hub, and what never ends."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def fuzzed(home: Path) -> Iterator[Served]:
    loaded = load_settings({}, {"home": str(home), "port": 0})
    with running(loaded, Recorder(_SCRIPTS), Shelf([shelved("m")], default_model="m")) as served:
        yield served


@pytest.fixture(scope="module")
def as_admin(fuzzed: Served, home: Path) -> dict[str, str]:
    """The header of this machine's commands: accounts that are made up meanwhile lock nobody out."""
    return {"authorization": f"Bearer {read_local_token(home)}"}


def operations(*prefixes: str) -> list[APIOperation[Any, Any, Any, Any]]:
    app = create_app(load_settings({}, {"home": Path("no-such-home")}))
    schema = schemathesis.openapi.from_dict(app.openapi())
    results: list[Any] = list(schema.get_all_operations())
    found: list[APIOperation[Any, Any, Any, Any]] = [each.ok() for each in results]
    return [each for each in found if each.path.startswith(prefixes) and not each.path.startswith(_LEFT_OUT)]


OPERATIONS = operations(*_PREFIXES)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_nothing_breaks(fuzzed: Served, as_admin: dict[str, str], operation: APIOperation[Any, Any, Any, Any]) -> None:
    is_admin = operation.path.startswith("/admin/")

    @given(case=operation.as_strategy(), is_known=st.booleans())
    @limits(NUM_EXAMPLES)
    def send(case: Case[Any], is_known: bool) -> None:
        if is_known and isinstance(case.body, dict):
            # or nearly no request would get past its model
            case.body["model"] = _MODELS.get(operation.path, "m")
        answer = case.call(base_url=f"http://127.0.0.1:{fuzzed.port}", headers=as_admin if is_admin else None)
        # 503: what such an admin asks for is not there in this server, a pool for one
        assert answer.status_code < 500 or (is_admin and answer.status_code == 503), (answer.text, case.body)

    send()


def limits(num_examples: int) -> settings:
    return settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


# a good body of each route that changes what is configured; its fields are then odd, one at a time
_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/admin/providers"): {
        "name": "up",
        "kind": "openai-compatible",
        "base_url": "http://127.0.0.1:9/v1",
        "allows_private_address": True,
    },
    ("PATCH", "/admin/providers/up"): {},
    ("POST", "/admin/routes"): {"name": "r", "pattern": "p", "targets": [{"model": "m"}]},
    ("PATCH", "/admin/routes/r"): {},
    ("POST", "/admin/routes/test"): {"model": "m"},
    ("POST", "/admin/users"): {"name": "ann", "password": "correct horse battery"},
    ("PATCH", "/admin/users/ann"): {},
    ("POST", "/admin/keys"): {"user": "ann", "name": "ci"},
    ("PATCH", "/admin/keys/1"): {},
    ("PATCH", "/admin/settings"): {},
}
_FORMS: dict[str, type] = {
    "providers": ProviderChange,
    "routes": RouteChange,
    "test": RouteQuestion,
    "users": UserChange,
    "keys": KeyChange,
}
_ODD: tuple[object, ...] = (-1, 10**30, 1e308, "\0", "http://[::1", [], [""], {"": 10**30})
_VERY_ODD: tuple[object, ...] = (-1, 10**30, "\0", [""])
"""For what there is much of."""


# those that add something take the same fields
_GONE_THROUGH = [each for each in _BODIES if IS_LONG or each[0] == "PATCH" or each[1] == "/admin/routes/test"]


@pytest.mark.parametrize(("method", "path"), _GONE_THROUGH)
def test_no_field_of_an_admin_breaks_anything(fuzzed: Served, as_admin: dict[str, str], method: str, path: str) -> None:
    kind = "test" if path.endswith("/test") else path.split("/")[2]
    # the level of the log is this process's
    names = [(row.name,) for row in SETTINGS if row.name != "log_level"]
    places = names if kind == "settings" else [*_places(_FORMS[kind])]
    assert len(places) > 2
    with fuzzed.http() as client:
        client.headers.update(as_admin)
        for (how, where), body in _BODIES.items():
            if how == "POST" and where != path:
                client.post(where, json=body)
        for place in places:
            for odd in _VERY_ODD if kind == "settings" else _ODD:
                answer = client.request(method, path, json=_BODIES[method, path] | _at(place, odd))
                assert answer.status_code < 500, (answer.text, place, odd)


def test_no_query_of_an_admin_breaks_anything(fuzzed: Served, as_admin: dict[str, str]) -> None:
    asked = [each for each in operations("/admin/") if each.method == "get"]
    assert len(asked) > 5
    with fuzzed.http() as client:
        client.headers.update(as_admin)
        for operation in asked:
            for parameter in operation.query:
                for odd in ("-1", str(10**30), "nan", "\0"):
                    answer = client.get(re.sub("{.*?}", "m", operation.path), params={parameter.name: odd})
                    assert answer.status_code < 500, (operation.label, parameter.name, odd, answer.text)


def _places(form: type) -> Iterator[tuple[str, ...]]:
    """Each field of a struct, and each of the structs in it."""
    described = msgspec.inspect.type_info(form)
    assert isinstance(described, msgspec.inspect.StructType)
    for field in described.fields:
        yield (field.encode_name,)
        kinds = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        for inner in kinds:
            if isinstance(inner, msgspec.inspect.StructType):
                yield from ((field.encode_name, *rest) for rest in _places(inner.cls))


def _at(place: tuple[str, ...], value: object) -> dict[str, Any]:
    for name in reversed(place):
        value = {name: value}
    assert isinstance(value, dict)
    return value


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
