"""Providers and routes over HTTP: what may be set, what it leads to, and what becomes of it at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mlx_manager.backends.addresses import AddressRefused, check_address
from mlx_manager.backends.scripted import script_of
from tests.clouds.conftest import Cloud
from tests.clouds.upstream_server import KEY
from tests.http.scripted_server import HELLO

LONG = "correct horse"
TO_OK = [{"provider": "up", "model": "ok"}]


def explain(cloud: Cloud, model: str, **more: Any) -> dict[str, Any]:
    answer = cloud.client.post("/admin/routes/test", json={"model": model, **more})
    assert answer.status_code == 200, answer.text
    explained: dict[str, Any] = answer.json()
    return explained


def targets_of(explained: dict[str, Any]) -> list[str]:
    return [f"{target['backend']}/{target['model']}" for target in explained["targets"]]


def test_patterns(cloud: Cloud) -> None:
    cloud.route("exact", TO_OK, "gpt-4o")
    cloud.route("prefix", [{"provider": "up", "model": "*"}], "up/", pattern_kind="prefix")
    cloud.route("regex", [{"provider": "up"}], "gpt-[0-9]+(-mini)?", pattern_kind="regex")
    assert targets_of(explain(cloud, "gpt-4o")) == ["up/ok"]
    assert targets_of(explain(cloud, "up/org/model")) == ["up/org/model"]
    assert targets_of(explain(cloud, "gpt-5-mini")) == ["up/gpt-5-mini"]
    assert explain(cloud, "gpt-5-minimal")["route"] is None
    assert targets_of(explain(cloud, "m")) == ["recorder/m"]


def test_the_first_route_that_matches_decides(cloud: Cloud) -> None:
    cloud.route("second", TO_OK, position=20)
    cloud.route("first", [{"model": "m"}], position=10)
    assert explain(cloud, "gpt")["route"] == "first"
    cloud.client.patch("/admin/routes/first", json={"is_on": False})
    explained = explain(cloud, "gpt")
    assert explained["route"] == "second"
    assert explained["steps"][0] == "route first: passed over, it is off"
    cloud.client.patch("/admin/routes/first", json={"is_on": True, "position": 30})
    assert explain(cloud, "gpt")["route"] == "second"
    names = [route["name"] for route in cloud.client.get("/admin/routes").json()["routes"]]
    assert names == ["second", "first"]


@pytest.mark.parametrize(
    ("conditions", "met", "unmet"),
    [
        ({"longer_than_tokens": 100}, {"num_tokens": 101}, {"num_tokens": 100}),
        ({"has_images": True}, {"has_images": True}, {}),
        ({"needs_tools": False}, {}, {"needs_tools": True}),
    ],
)
def test_conditions(cloud: Cloud, conditions: dict[str, Any], met: dict[str, Any], unmet: dict[str, Any]) -> None:
    cloud.route("some", TO_OK, "m", conditions=conditions)
    assert explain(cloud, "m", **met)["route"] == "some"
    passed = explain(cloud, "m", **unmet)
    assert passed["route"] is None
    assert "passed over" in passed["steps"][0]


def test_whose_request_it_is_is_not_forged_and_asked_about_as_it_is(scripted_cloud: Callable[..., Cloud]) -> None:
    cloud = scripted_cloud({"m": script_of(HELLO)})
    client = cloud.client
    secrets = {}
    for name in ("ada", "bob"):
        made = client.post("/auth/register" if name == "ada" else "/admin/users", json={"name": name, "password": LONG})
        assert made.status_code == 201
        key = client.post("/admin/keys", json={"name": "premium", "user": name})
        secrets[name] = {"x-api-key": key.json()["secret"]}
    kept = {"name": "kept", "user": "bob", "limits": {"is_local_only": True, "models": ["m", "gpt"]}}
    secrets["kept"] = {"x-api-key": client.post("/admin/keys", json=kept).json()["secret"]}
    cloud.route("for-key", TO_OK, "m", conditions={"keys": ["ada/premium"]})
    cloud.route("for-user", TO_OK, "m", conditions={"users": ["ada"]})
    cloud.route("gpt", TO_OK)
    asker: Mapping[str, str]
    for asker, route in (
        ({"key": "ada/premium"}, "for-key"),
        ({"key": "premium", "user": "ada"}, "for-key"),
        ({"key": "bob/premium"}, None),
        ({"user": "ada"}, "for-user"),
        ({"user": "bob"}, None),
        ({}, None),
    ):
        assert explain(cloud, "m", **asker)["route"] == route
    # a name that anybody can give to a key of theirs opens nothing
    assert cloud.ask("m", headers=secrets["ada"]).headers["x-mlx-backend"] == "up"
    assert cloud.ask("m", headers=secrets["bob"]).headers["x-mlx-backend"] == "recorder"
    # what a request would be refused with, the question is
    for model in ("gpt", "other"):
        asked = client.post("/admin/routes/test", json={"model": model, "key": "bob/kept"}).json()["error"]
        assert asked == cloud.ask(model, headers=secrets["kept"]).json()["error"]
        assert asked["code"] == "not_permitted"
    for wrong, param in (({"user": "eve"}, "user"), ({"key": "ada/none"}, "key"), ({"key": "none"}, "user")):
        refused = client.post("/admin/routes/test", json={"model": "m", **wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, param)


def test_what_routes_answer_to_is_listed(scripted_cloud: Callable[..., Cloud]) -> None:
    cloud = scripted_cloud({"m": script_of(HELLO), "other": script_of(HELLO)})
    client = cloud.client
    assert client.post("/admin/providers/up/models").status_code == 200
    cloud.route("gpt", [{"provider": "up", "model": "ok"}, {"model": "m"}])
    cloud.route("alias", [{"model": "m"}], "claude")
    cloud.route("prefix", [{"provider": "up", "model": "*"}], "up/", pattern_kind="prefix")
    cloud.route("off", TO_OK, "nobody", is_on=False)
    listed = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
    assert list(listed) == ["m", "other", "gpt", "claude", "up/flaky", "up/ok"]
    assert (listed["gpt"]["kind"], listed["gpt"]["targets"]) == ("route", ["up/ok", "recorder/m"])
    assert (listed["claude"]["root"], listed["claude"]["capabilities"]) == ("m", ["chat", "completions"])
    for name, one in listed.items():
        assert client.get(f"/v1/models/{name}").json() == one
        assert cloud.ask(name, max_tokens=5).status_code == 200
    assert client.get("/v1/models/nobody").status_code == 404
    page = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()["data"]
    assert [one["id"] for one in page] == list(listed)
    # a key sees what it may ask for, and no more
    client.post("/auth/register", json={"name": "ada", "password": LONG})
    for limits, seen in (({"models": ["m", "up/ok"]}, ["m", "up/ok"]), ({"is_local_only": True}, list(listed)[:4])):
        key = client.post("/admin/keys", json={"name": "k" + "-".join(limits), "user": "ada", "limits": limits}).json()
        headers = {"x-api-key": key["secret"]}
        assert [one["id"] for one in client.get("/v1/models", headers=headers).json()["data"]] == seen
        refused = client.get("/v1/models/up/flaky", headers=headers)
        assert refused.status_code == (403 if "models" in limits else 404)


def test_a_model_that_is_not_here_is_said_with_those_near_it(cloud: Cloud) -> None:
    cloud.route("both", [{"model": "mn"}, *TO_OK])
    unknown = explain(cloud, "mm")
    assert unknown["steps"][-1] == "this machine has no model 'mm'. Did you mean m?"
    assert [target["has_model"] for target in unknown["targets"]] == [False]
    assert [target["has_model"] for target in explain(cloud, "gpt")["targets"]] == [False, None]
    assert [target["has_model"] for target in explain(cloud, "m")["targets"]] == [True]


def test_conditions_are_told_from_the_request(cloud: Cloud) -> None:
    cloud.route("long", TO_OK, "m", conditions={"longer_than_tokens": 50})
    cloud.route("tools", TO_OK, "m", conditions={"needs_tools": True})
    assert cloud.ask("m").headers["x-mlx-backend"] == "recorder"
    long = [{"role": "user", "content": "word " * 60}]
    assert cloud.ask("m", messages=long).headers["x-mlx-backend"] == "up"
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    assert cloud.ask("m", tools=[tool]).headers["x-mlx-backend"] == "up"


def test_a_conversation_comes_back_to_its_target(cloud: Cloud) -> None:
    patient = {"connect_s": 20, "first_token_s": 20, "between_tokens_s": 20, "total_s": 60}
    cloud.client.patch("/admin/providers/up", json={"timeouts": patient})
    cloud.route("nodes", [{"provider": "up", "model": name} for name in ("a", "b", "c")], order="conversation")

    def asked(number: int, num_turns: int) -> str:
        said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question {number}?"}]
        turns = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}] * num_turns
        assert cloud.ask(messages=said + turns).status_code == 200
        return str(cloud.upstream.bodies[-1]["model"])

    first = [asked(number, 0) for number in range(12)]
    assert [asked(number, 2) for number in range(12)] == first
    assert set(first) == {"a", "b", "c"}
    # a target that goes moves only the conversations that it had
    cloud.client.patch("/admin/routes/nodes", json={"targets": [{"provider": "up", "model": name} for name in "ac"]})
    left = [asked(number, 1) for number in range(12)]
    assert [now for now, then in zip(left, first, strict=True) if then != "b"] == [
        name for name in first if name != "b"
    ]
    assert set(left) == {"a", "c"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"pattern": "(a+"}, "pattern"),
        ({"pattern": r"(a)\1"}, "pattern"),
        ({"pattern": ""}, "pattern"),
        ({"pattern_kind": "exact", "pattern": "gpt-*"}, "pattern"),
        ({"pattern_kind": "prefix", "pattern": "gpt-*"}, "pattern"),
        ({"targets": []}, "targets"),
        ({"targets": [{"provider": "nobody"}]}, "name"),
        ({"targets": [{"model": "*"}]}, "targets"),
        ({"targets": [{"providr": "up"}]}, "targets[0]"),
        ({"pattern_kind": "glob"}, "pattern_kind"),
        ({"name": "a b"}, "name"),
        ({"order": "random"}, "order"),
        ({"spill": {"queue_wait_s": 0}}, "spill.queue_wait_s"),
        ({"targets": [{"model": ""}]}, "targets"),
        ({"conditions": {"keys": ["ci"]}}, "conditions.keys"),
        ({"conditions": {"keys": ["ada/"]}}, "conditions.keys"),
        ({"position": 1e20}, "position"),
        ({"position": -(10**9)}, "position"),
        ({"conditions": {"longer_than_tokens": -1}}, "conditions.longer_than_tokens"),
        ({"conditions": {"longer_than_tokens": 1e30}}, "conditions.longer_than_tokens"),
        ({"colour": "red"}, None),
    ],
)
def test_a_wrong_route_names_the_field(cloud: Cloud, change: dict[str, Any], param: str | None) -> None:
    body = {"name": "r", "pattern": "a+", "pattern_kind": "regex", "targets": TO_OK}
    refused = cloud.client.post("/admin/routes", json=body | change)
    assert refused.status_code in (400, 404), refused.text
    assert refused.json()["error"]["param"] == param


def test_a_pattern_that_would_explode_elsewhere_is_quick(cloud: Cloud) -> None:
    cloud.route("evil", TO_OK, "(a|a)*(a|a)*(a|aa)*b", pattern_kind="regex")
    answer = cloud.client.post("/admin/routes/test", json={"model": "a" * 200})
    assert answer.elapsed.total_seconds() < 1
    assert answer.json()["route"] is None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"base_url": "ftp://host/v1"}, "base_url"),
        ({"base_url": "https://user:secret@host/v1"}, "base_url"),
        ({"base_url": "http://169.254.169.254/latest", "allows_private_address": True}, "base_url"),
        ({"base_url": "http://[fd00:ec2::254]/", "allows_private_address": True}, "base_url"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, "base_url"),
        ({"base_url": "http://[::1/v1"}, "base_url"),
        ({"key": ""}, "key"),
        ({"key": "a\nb"}, "key"),
        ({"prices": {"ok": {"input_usd": 1, "output_usd": -1}}}, "prices"),
        ({"prices": {"ok": {"input_usd": 1, "output_usd": 1, "cached_input_usd": -1}}}, "prices"),
        ({"allows_private_address": False}, "base_url"),
        ({"base_url": "http://2130706433/v1", "allows_private_address": False}, "base_url"),
        ({"headers": {"Host": "evil"}}, "headers"),
        ({"headers": {"x-a": "b\r\nc: d"}}, "headers"),
        ({"timeouts": {"first_token_s": 0}}, "timeouts"),
        ({"timeouts": {"first": 1}}, "timeouts"),
        ({"max_retries": 99}, "max_retries"),
        ({"kind": "cohere"}, "kind"),
        ({"name": "Ü"}, "name"),
    ],
)
def test_a_wrong_provider_names_the_field(cloud: Cloud, change: dict[str, Any], param: str) -> None:
    refused = cloud.provider(**({"name": "second"} | change))
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == param


def test_an_address_that_is_none_changes_nothing(cloud: Cloud) -> None:
    refused = cloud.client.patch("/admin/providers/up", json={"base_url": "http://[::1/v1", "key": KEY})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "base_url")
    assert cloud.client.get("/admin/providers/up").json()["base_url"] == cloud.upstream.base_url


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "192.168.1.1", "fc00::1", "::1", "100.64.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1"],
)
def test_private_addresses_need_a_switch(address: str) -> None:
    with pytest.raises(AddressRefused):
        check_address(address, "host", allows_private=False)
    check_address(address, "host", allows_private=True)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1%eth0", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"],
)
def test_some_addresses_are_never_a_provider_s(address: str) -> None:
    with pytest.raises(AddressRefused):
        check_address(address, "host", allows_private=True)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
)
def test_public_addresses_are_a_provider_s(address: str) -> None:
    check_address(address, "host", allows_private=False)


def test_an_address_is_checked_again_when_it_is_connected_to(cloud: Cloud) -> None:
    # as if its name had led elsewhere when it was added
    cloud.lead("ok")
    assert cloud.ask().status_code == 200
    raw = sqlite3.connect(cloud.home / "mlx-manager.db", isolation_level=None)
    raw.execute("UPDATE providers SET options = json_set(options, '$.allows_private_address', json('false'))")
    raw.close()
    # any change has everything read anew
    cloud.client.patch("/admin/settings", json={"use_cloud": True})
    refused = cloud.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "provider_failed")
    assert "an address of this machine" in refused.json()["error"]["message"]


def test_a_key_goes_in_and_never_comes_out(cloud: Cloud) -> None:
    cloud.client.patch("/admin/providers/up", json={"headers": {"x-team": "secret-team"}})
    cloud.lead("ok")
    assert cloud.ask().status_code == 200
    assert cloud.upstream.headers[-1]["authorization"] == f"Bearer {KEY}"
    assert cloud.upstream.headers[-1]["x-team"] == "secret-team"
    shown = cloud.client.get("/admin/providers/up").json()
    assert (shown["has_key"], shown["header_names"]) == (True, ["x-team"])
    everything = cloud.client.get("/admin/providers").text + cloud.client.get("/admin/changes").text
    raw = sqlite3.connect(cloud.home / "mlx-manager.db")
    everything += "\n".join(raw.iterdump())
    raw.close()
    assert KEY not in everything
    assert "secret-team" not in everything


def test_changes_hold_at_once(cloud: Cloud) -> None:
    cloud.lead("ok")
    assert cloud.ask().status_code == 200
    cloud.client.patch("/admin/providers/up", json={"key": None})
    assert cloud.ask().status_code == 200
    assert "authorization" not in cloud.upstream.headers[-1]
    cloud.client.patch("/admin/providers/up", json={"is_on": False})
    off = cloud.ask()
    assert (off.status_code, off.json()["error"]["code"]) == (503, "unavailable")
    assert cloud.client.delete("/admin/providers/up").status_code == 409
    assert cloud.client.delete("/admin/routes/lead").status_code == 204
    assert cloud.client.delete("/admin/providers/up").status_code == 204
    assert cloud.ask().status_code == 404
    actions = [row["action"] for row in cloud.client.get("/admin/changes").json()["changes"]]
    assert actions[:3] == ["provider.delete", "route.delete", "provider.change"]


def test_the_models_of_a_provider(cloud: Cloud) -> None:
    assert cloud.client.post("/admin/providers/up/models").json()["models"] == ["flaky", "ok"]
    cloud.client.patch("/admin/providers/up", json={"key": "wrong"})
    failed = cloud.client.post("/admin/providers/up/models")
    assert failed.status_code == 502
    assert "refuses the key" in failed.json()["error"]["message"]
    assert cloud.client.get("/admin/providers/up").json()["models"] == ["flaky", "ok"]


def test_settings_that_change_live(cloud: Cloud) -> None:
    said = cloud.client.get("/admin/settings").json()
    asked = {
        "use_cloud": True,
        "cloud_budget": None,
        "memory_budget": "75%",
        "eviction": "lru",
        "drain_timeout": 30.0,
    }
    assert {name: said[name] for name in asked} == asked
    changed = cloud.client.patch("/admin/settings", json={"cloud_budget": 5})
    assert changed.json() == said | {"cloud_budget": 5}
    wrong = ({"port": 1}, {"nonsense": 1}, {"cloud_budget": -1}, {"use_cloud": "perhaps"})
    for body in (*wrong, {"memory_budget": "200%"}, {"eviction": "mru"}, {"drain_timeout": -1}):
        refused = cloud.client.patch("/admin/settings", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, next(iter(body)))


def test_embeddings_of_a_provider(cloud: Cloud) -> None:
    cloud.lead("embed")
    answer = cloud.client.post("/v1/embeddings", json={"model": "gpt", "input": ["a", "b"]})
    assert [row["embedding"] for row in answer.json()["data"]] == [[0.0, 0.5], [1.0, 0.5]]
    assert answer.headers["x-mlx-backend"] == "up"
    refused = cloud.client.post("/v1/rerank", json={"model": "gpt", "query": "q", "documents": ["d"]})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "up ranks no documents.")


def test_a_model_that_nobody_has_is_not_found_near_those_that_are(cloud: Cloud) -> None:
    cloud.route("r", TO_OK, "gpt-4o")
    missing = cloud.ask("gpt-4")
    assert missing.status_code == 404
    assert "gpt-4o" in missing.json()["error"]["message"]


def test_a_kept_key_does_not_go_to_another_host(cloud: Cloud) -> None:
    elsewhere = {"base_url": f"http://localhost:{cloud.upstream.port}/v1"}
    refused = cloud.client.patch("/admin/providers/up", json=elsewhere)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "key")
    assert cloud.client.patch("/admin/providers/up", json=elsewhere | {"key": KEY}).status_code == 200
    assert cloud.ask().status_code == 404
    cloud.lead("ok")
    assert cloud.ask().status_code == 200


def test_names_that_a_provider_does_not_know_are_no_labels(cloud: Cloud) -> None:
    cloud.route("all", [{"provider": "up"}], "nobody-", pattern_kind="prefix")
    for number in range(3):
        assert cloud.ask(f"nobody-{number}").status_code == 400
    assert "nobody-" not in cloud.client.get("/metrics").text
