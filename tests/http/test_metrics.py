"""GET /metrics: what Prometheus reads of a server, before and after requests."""

from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from mlx_manager.backends.scripted import Pause, script_of
from mlx_manager.errors import WorkerDied
from mlx_manager.ipc import EngineStats
from mlx_manager.ir import RequestRecord
from mlx_manager.observability.metrics import Metrics
from mlx_manager.pool import ModelState
from tests.http.scripted_server import HELLO, Serve, Served, Shelf, shelved
from tests.http.test_errors import CHAT, COMPLETIONS, complete_body
from tests.http.test_streams import DEAD, ENDLESS
from tools.docs import REPOSITORY

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(served: Served) -> Samples:
    """Every sample by name and labels, as Prometheus' own parser reads them."""
    with served.http() as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over every sample of that name with these labels."""
    wanted = set(labels.items())
    return sum(value for (found, own), value in samples.items() if found == name and wanted <= set(own))


def test_requests_are_counted_with_their_times_and_tokens(serve: Serve) -> None:
    served = serve({"m": (Pause(0.06), *script_of(HELLO))})
    with served.http() as client:
        for stream in (False, True):
            client.post(CHAT, json=complete_body(CHAT) | {"stream": stream})
        client.post(COMPLETIONS, json={"model": "m", "prompt": ["a", "b"]})
    samples = scrape(served)
    requests = "mlx_manager_requests_total"
    assert total(samples, requests, path=CHAT, model="m", backend="recorder", status="200") == 2
    assert total(samples, requests, path=COMPLETIONS) == 2
    assert total(samples, "mlx_manager_tokens_total", model="m", kind="prompt") == 4 * 7
    assert total(samples, "mlx_manager_tokens_total", model="m", kind="completion") == 4 * 4
    for name in ("queue_seconds", "time_to_first_token_seconds", "request_seconds"):
        assert total(samples, f"mlx_manager_{name}_count", model="m") == 4
        assert 4 * 0.05 < total(samples, f"mlx_manager_{name}_sum", model="m") < 8
        assert total(samples, f"mlx_manager_{name}_bucket", model="m", le="0.05") == 0
    assert total(samples, "mlx_manager_inter_token_seconds_count", model="m") == 4


async def test_what_answers_cost_is_summed() -> None:
    metrics = Metrics("1", lambda: [], lambda: None)
    for cost_usd in (0.25, 0.5, None):
        metrics.count(
            RequestRecord(request_id="r", answer_id="a", model="big", target="cloud", status=200, cost_usd=cost_usd)
        )
    assert b'mlx_manager_cost_usd_total{backend="cloud",model="big"} 0.75' in metrics.render()


def test_errors_are_counted_by_code(serve: Serve) -> None:
    served = serve({"m": (*ENDLESS[:3], DEAD)})
    with served.http() as client:
        client.post(CHAT, json={"model": "m"})
        client.post(CHAT, json=complete_body(CHAT))
        client.post("/v1/nothing-here", json={})
        client.post("/v1/chat/completions", json=complete_body(CHAT), headers={"host": "evil.example"})
    samples = scrape(served)
    assert total(samples, "mlx_manager_errors_total") == 4
    for code in ("invalid_request", WorkerDied.code, "not_found", "host_not_allowed"):
        assert total(samples, "mlx_manager_errors_total", code=code) == 1


def test_clients_cannot_make_labels_without_end(serve: Serve) -> None:
    served = serve({"m": script_of(HELLO)})
    counts = []
    with served.http() as client:
        for index in range(30):
            client.post(CHAT, json=complete_body(CHAT) | {"model": f"nobody-{index}"})
            client.post(f"/v1/path-{index}", json={})
            counts.append(len(scrape(served)))
    assert counts[0] == counts[-1]
    assert total(scrape(served), "mlx_manager_requests_total", status="404") == 60


def test_models_and_engines_stand_in_it(serve: Serve) -> None:
    stats = EngineStats(
        num_running=3,
        num_blocks_total=10,
        num_blocks_free=5,
        num_blocks_cached=3,
        num_blocks_used=2,
        num_prompt_tokens=200,
        num_cached_tokens=50,
        num_preemptions=7,
        num_grammar_masks=9,
        grammar_compute_s=0.5,
        grammar_wait_s=0.25,
    )
    warm = shelved("warm", num_worker_deaths=2, measured_bytes=1000, stats=stats)
    samples = scrape(serve({}, Shelf([warm, shelved("cold", ModelState.COLD)])))
    assert total(samples, "mlx_manager_model_state", model="warm", state="ready") == 1
    assert total(samples, "mlx_manager_model_state", model="warm") == 1
    assert total(samples, "mlx_manager_model_state", model="cold") == 0
    for state, count in (("free", 5), ("cached", 3), ("used", 2)):
        assert total(samples, "mlx_manager_kv_blocks", model="warm", state=state) == count
    assert total(samples, "mlx_manager_batch_size", model="warm") == 3
    assert total(samples, "mlx_manager_prefix_hit_ratio", model="warm") == 0.25
    assert total(samples, "mlx_manager_engine_preemptions_total", model="warm") == 7
    assert total(samples, "mlx_manager_engine_grammar_masks_total", model="warm") == 9
    assert total(samples, "mlx_manager_engine_grammar_compute_seconds_total", model="warm") == 0.5
    assert total(samples, "mlx_manager_engine_grammar_wait_seconds_total", model="warm") == 0.25
    assert total(samples, "mlx_manager_worker_restarts_total", model="warm") == 2
    assert total(samples, "mlx_manager_model_memory_measured_bytes", model="warm") == 1000
    assert total(samples, "mlx_manager_build_info") == 1


def test_dashboard_and_alert_rules_ask_for_metrics_that_there_are(serve: Serve) -> None:
    served = serve({"m": script_of(HELLO), "broken": (DEAD,)}, Shelf([shelved("warm", stats=EngineStats())]))
    with served.http() as client:
        for model in ("m", "broken"):
            client.post(CHAT, json=complete_body(CHAT) | {"model": model})
        text = client.get("/metrics").text
    families = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    # what only a pool of real models, a fallback or the prefix cache brings
    families |= {f"mlx_manager_{name}" for name in _OF_A_POOL}
    deploy = REPOSITORY / "deploy"
    dashboard = json.loads((deploy / "grafana" / "mlx-manager.json").read_text(encoding="utf-8"))
    assert len(dashboard["panels"]) > 10
    asked = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    asked.add((deploy / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    named = {name.removesuffix("_bucket") for name in re.findall(r"mlx_manager_\w+", " ".join(asked))}
    assert len(named) > 20
    assert named - families == set()


_OF_A_POOL = {f"memory_{what}_bytes" for what in ("budget", "floor", "system_available")} | {
    f"{what}_total" for what in ("model_loads", "model_load_failures", "model_evictions", "model_trims")
}
