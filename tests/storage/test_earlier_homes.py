"""A home folder that an earlier version has written: all that is not in the database is read by this one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import RequestRecord
from mlx_manager.observability.span_store import SPANS_FILE, SpanReader, SpanWriter
from mlx_manager.pool.names import ModelNames
from mlx_manager.storage.private_files import read_local_token
from mlx_manager.storage.secrets import Secrets
from tools.docs import REPOSITORY

HOMES = sorted(path for path in (REPOSITORY / "tests" / "data" / "homes").iterdir() if path.is_dir())
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(params=HOMES, ids=lambda path: path.name)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, with its traces in the form in which they are kept."""
    copied = tmp_path / "home"
    shutil.copytree(request.param, copied)
    with closing(sqlite3.connect(copied / "state" / SPANS_FILE)) as spans:
        spans.executescript((copied / "state" / "spans.sql").read_text(encoding="utf-8"))
    return copied


def test_settings_and_what_admins_changed_about_models(home: Path) -> None:
    settings = load_settings({}, {"home": str(home)})
    assert (settings.log_level, settings.max_body_bytes, settings.cloud_budget_usd) == ("warning", 16 * 1024**2, 20)
    assert settings.alert_disk_free_bytes == 3 * 1024**3
    names = ModelNames(settings.models, home / "state" / "pool.json")
    said = names.overrides("tiny")
    assert (said.aliases, said.ttl_s, said.pinned) == (("small",), 300, True)
    assert names.resolve("small", ["tiny"]) == "tiny"


def test_keys_and_what_was_sealed_with_them(home: Path) -> None:
    sealed = (home / "sealed.txt").read_text(encoding="ascii").strip()
    assert Secrets.open(home).unseal(sealed) == b"sk-of-a-provider"
    assert read_local_token(home) == "mlxm_local_of-an-earlier-version"


def test_traces_are_read_and_added_to(home: Path) -> None:
    writer = SpanWriter(home / "state", max_bytes=2**30, max_age_s=10**10)
    writer.write([], [RequestRecord(request_id="new", status=200, arrived_unix_s=1_790_000_001.0)])
    writer.close()
    reader = SpanReader(home / "state")
    assert [traced.request_id for traced in reader.requests(limit=10)] == ["new", "req_1"]
    assert [span.name for span in reader.trace(TRACE_ID)] == ["POST /v1/chat/completions"]


def test_traces_of_a_later_version_are_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(tmp_path / SPANS_FILE)) as later:
        later.executescript("CREATE TABLE spans (shape TEXT); PRAGMA user_version = 1000")
    writer = SpanWriter(tmp_path, max_bytes=2**30, max_age_s=3600)
    writer.close()
    assert "written by a later version" in caplog.text
    assert SpanReader(tmp_path).requests(limit=1) == []
    assert (tmp_path / SPANS_FILE).with_suffix(".broken").exists()
