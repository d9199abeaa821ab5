"""`mlx-manager bench` as a person runs it: the real program against a real server."""

import asyncio
import json
import sys
from pathlib import Path

from mlx_manager.bench import WORKLOADS
from mlx_manager.cli.bench import WORKLOAD_NAMES
from tests.bench.slow_server import SlowServer, listening

PROGRAM = Path(sys.executable).parent / "mlx-manager"


async def run_bench(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), "bench", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_json_holds_the_figures_of_the_chosen_workloads() -> None:
    async with listening(SlowServer()) as target:
        status, out, err = await run_bench(
            "--url", target.url, "--workload", "single", "--workload", "four", "--max-tokens", "5", "--json"
        )
    assert status == 0, err
    body = json.loads(out)
    assert body["model"] == "slow"
    assert [one["workload"] for one in body["measurements"]] == ["single", "four"]
    assert [one["figures"]["num_completion_tokens"] for one in body["measurements"]] == [5, 20]


async def test_a_table_is_printed_and_failures_give_status_1() -> None:
    async with listening(SlowServer(breaks_after=4)) as target:
        status, out, _ = await run_bench("--url", target.url, "--workload", "single", "--max-tokens", "5")
    assert status == 1
    assert "single" in out
    assert "the worker died" in out


async def test_a_server_that_is_not_there_is_said_in_one_line() -> None:
    async with listening(SlowServer()) as target:
        pass
    status, out, err = await run_bench("--url", target.url)
    assert status == 1
    assert out == ""
    assert f"No server answers at {target.url}" in err
    assert "Traceback" not in err


async def test_the_address_is_that_of_the_settings() -> None:
    async with listening(SlowServer()) as target:
        port = target.url.rpartition(":")[2]
    status, _, err = await run_bench("--port", port)
    assert status == 1
    assert f"No server answers at http://127.0.0.1:{port}" in err


async def test_an_unknown_workload_is_refused_by_name() -> None:
    status, _, err = await run_bench("--workload", "sprint")
    assert status == 2
    assert "sprint" in err


def test_the_help_names_the_workloads() -> None:
    assert ", ".join(workload.name for workload in WORKLOADS) == WORKLOAD_NAMES
