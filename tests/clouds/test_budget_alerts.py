"""What answers of providers cost, in alerts and metrics."""

from __future__ import annotations

import time
from pathlib import Path

from mlx_manager.backends.scripted import script_of
from tests.clouds.conftest import Cloud, cloud_of
from tests.clouds.upstream_server import Upstream
from tests.http.scripted_server import HELLO


def test_a_budget_that_is_used_fires_alerts(upstream: Upstream, tmp_path: Path) -> None:
    with cloud_of(upstream, tmp_path, {"m": script_of(HELLO)}, alert_period=0.1) as cloud:
        price = {"input_usd": 10_000.0, "output_usd": 20_000.0, "cached_input_usd": 2_500.0}
        cloud.client.patch("/admin/providers/up", json={"prices": {"ok": price}})
        cloud.lead("ok")
        cloud.client.patch("/admin/settings", json={"cloud_budget": 0.2})
        assert cloud.ask().status_code == 200
        assert wait_for_alerts(cloud, {"budget"})["budget"].endswith("is used to 0.18 of 0.20 USD.")
        text = cloud.client.get("/metrics").text
        assert 'mlx_manager_cloud_spent_usd{key="",key_id=""} 0.18' in text
        assert 'mlx_manager_cloud_budget_usd{key="",key_id=""} 0.2' in text
        assert "mlx_manager_disk_free_bytes " in text
        cloud.client.patch("/admin/settings", json={"cloud_budget": 0.1})
        wait_for_alerts(cloud, {"budget", "budget_spent"})
        cloud.client.patch("/admin/settings", json={"cloud_budget": None})
        wait_for_alerts(cloud, set())


def wait_for_alerts(cloud: Cloud, names: set[str]) -> dict[str, str]:
    """The messages of the alerts that fire, once they are these."""
    deadline_s = time.monotonic() + 10
    while True:
        firing = {alert["name"]: alert["message"] for alert in cloud.client.get("/admin/alerts").json()["firing"]}
        # that of the disk is the machine's
        firing.pop("disk", None)
        if firing.keys() == names or time.monotonic() > deadline_s:
            assert firing.keys() == names
            return firing
        time.sleep(0.05)
