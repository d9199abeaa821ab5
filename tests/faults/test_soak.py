"""The soak, for a minute; `make soak` runs it for ten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import soak

pytestmark = pytest.mark.faults


def test_a_minute_of_the_soak(tiny_folder: Path, tmp_path: Path) -> None:
    report = soak(tiny_folder, tmp_path / "home", 1.0)
    assert report["num_requests"] > 300
