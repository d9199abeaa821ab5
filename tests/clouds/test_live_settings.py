"""Settings that an admin changes while the server runs: checked, kept, followed, and forgotten again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_manager.backends.scripted import script_of
from tests.clouds.conftest import Cloud, cloud_of
from tests.clouds.upstream_server import Upstream
from tests.http.scripted_server import HELLO


def test_a_change_holds_at_once_and_after_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    with cloud_of(upstream, tmp_path, {"m": script_of(HELLO)}, max_body="1MiB") as cloud:
        assert cloud.ask("m", user="x" * 3000).status_code == 200
        changed = cloud.client.patch("/admin/settings", json={"max_body": "2KiB", "preload": ["m"]})
        assert (changed.json()["max_body"], changed.json()["preload"]) == ("2KiB", ["m"])
        assert cloud.ask("m", user="x" * 3000).status_code == 413
        cloud.client.patch("/admin/settings", json={"responses_max_size": 1})
        assert keeps_responses(cloud)
        cloud.client.delete("/admin/providers/up")
    with cloud_of(upstream, tmp_path, {"m": script_of(HELLO)}, max_body="1MiB") as cloud:
        assert cloud.ask("m", user="x" * 3000).status_code == 413
        assert not keeps_responses(cloud)
        assert cloud.client.patch("/admin/settings", json={"max_body": None}).json()["max_body"] == "1MiB"
        assert cloud.ask("m", user="x" * 3000).status_code == 200


def keeps_responses(cloud: Cloud) -> bool:
    made = cloud.client.post("/v1/responses", json={"model": "m", "input": "hi"}).raise_for_status()
    return cloud.client.get(f"/v1/responses/{made.json()['id']}").status_code == 200


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"max_body": "2KiB", "eviction": "oldest"}, "eviction", "it takes one of lru, lfu, none"),
        ({"max_step_tokens": 16}, "max_step_tokens", "less than max_batch_size"),
        ({"host": "0.0.0.0"}, "host", "set --host, MLX_MANAGER_HOST or host in config.toml"),
        ({"max_boddy": 1}, "max_boddy", "Did you mean max_body?"),
    ],
)
def test_all_changes_are_made_or_none(cloud: Cloud, changes: dict[str, object], param: str, words: str) -> None:
    before = cloud.client.get("/admin/settings").json()
    refused = cloud.client.patch("/admin/settings", json=changes)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert words in refused.json()["error"]["message"]
    assert cloud.client.get("/admin/settings").json() == before


def test_what_only_goes_together_is_changed_together(cloud: Cloud) -> None:
    both = {"max_step_tokens": 16, "max_batch_size": 8}
    assert cloud.client.patch("/admin/settings", json=both).status_code == 200
    assert cloud.client.patch("/admin/settings", json=dict.fromkeys(both)).json()["max_batch_size"] == 32


def test_a_secret_setting_is_not_told(cloud: Cloud) -> None:
    changed = cloud.client.patch("/admin/settings", json={"alert_webhook": "https://hook.example/secret"})
    try:
        assert changed.json()["alert_webhook"] == "…"
        changes = cloud.client.get("/admin/changes").text
        assert "alert_webhook" in changes
        assert "hook.example" not in changes
    finally:
        cloud.client.patch("/admin/settings", json={"alert_webhook": None})
