"""A clock that jumps by days, forth and back, under a running server."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from mlx_manager.pool import find_openblas
from tests.e2e.server_process import PATIENCE_S, serving

pytestmark = pytest.mark.faults
DAY_S = 86_400
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("CLOCK_SHIFT_FILE"), O_RDONLY);
    shift = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (clock == CLOCK_REALTIME && shift) now->tv_sec += *shift;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""


@pytest.fixture
def shifting(tmp_path: Path) -> tuple[Path, Path]:
    """A library that shifts the wall clock of a process, and the file that says by how many seconds."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source, library, shift = tmp_path / "shift.c", tmp_path / "shift.so", tmp_path / "shift"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    shift.write_bytes(struct.pack("q", 0))
    return library, shift


def test_a_limit_per_minute_lasts_a_minute_whatever_the_clock_says(
    tiny_folder: Path, tmp_path: Path, shifting: tuple[Path, Path]
) -> None:
    library, shift = shifting
    shift.write_bytes(struct.pack("q", 3 * DAY_S))
    environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(shift)}
    with (
        serving(tiny_folder, tmp_path / "home", "--kv-budget", "64MiB", environment=environment) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as admin,
    ):
        admin.post("/auth/register", json={"name": "ada", "password": "correct horse"}).raise_for_status()
        minted = (
            admin.post("/auth/keys", json={"name": "ci", "limits": {"requests_per_minute": 2}})
            .raise_for_status()
            .json()
        )

        def ask() -> httpx.Response:
            body = {"model": server.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
            headers = {"authorization": f"Bearer {minted['secret']}"}
            return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_S)

        assert [ask().status_code for _ in range(3)] == [200, 200, 429]
        with shift.open("r+b") as file:
            file.write(struct.pack("q", 0))
        refused = ask()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) <= 60


def test_a_clock_that_jumps(tiny_folder: Path, tmp_path: Path, shifting: tuple[Path, Path]) -> None:
    library, shift = shifting
    preloaded = " ".join(filter(None, (str(library), str(find_openblas() or ""))))
    environment = {"LD_PRELOAD": preloaded, "CLOCK_SHIFT_FILE": str(shift)}
    flags = ("--model-ttl", "3600", "--hang-timeout", "60", "--alert-period", "0.2", "--kv-budget", "64MiB")
    with serving(tiny_folder, tmp_path / "home", *flags, environment=environment) as server:

        def jump(seconds: int) -> None:
            with shift.open("r+b") as file:
                file.write(struct.pack("q", seconds))

        lengths: list[int] = []

        def ask() -> None:
            answer = server.sdk.chat.completions.create(
                model=server.model,
                messages=[{"role": "user", "content": "Go on."}],
                max_tokens=600,
                extra_body={"ignore_eos": True},
            )
            assert answer.usage is not None
            lengths.append(answer.usage.completion_tokens)

        pid = server.model_health()["worker_pid"]
        num_asked = 0
        for seconds in (3 * DAY_S, -3 * DAY_S, 40 * DAY_S, 0):
            asking = [threading.Thread(target=ask) for _ in range(4)]
            for thread in asking:
                thread.start()
            time.sleep(0.3)
            jump(seconds)
            time.sleep(1.5)
            date = httpx.get(f"{server.url}/health", timeout=PATIENCE_S).headers["date"]
            assert str(time.gmtime(time.time() + seconds).tm_year) in date
            for thread in asking:
                thread.join(PATIENCE_S)
            num_asked += len(asking)
        assert lengths == [600] * num_asked
        assert server.model_health()["worker_pid"] == pid, "its worker was replaced"
        assert server.model_health()["state"] == "ready"
        time.sleep(1.0)
        rows = httpx.get(f"{server.url}/admin/requests", params={"model": server.model}, timeout=PATIENCE_S).json()
        records = [row["record"] for row in rows["requests"]]
        assert len(records) == num_asked
        assert all(0 <= record["duration_s"] < 60 for record in records)
        assert all(record["status"] == 200 for record in records)
        alerts = httpx.get(f"{server.url}/admin/alerts", timeout=PATIENCE_S).json()
        assert [alert for alert in alerts["firing"] if alert["name"] not in ("disk", "memory_pressure")] == []
