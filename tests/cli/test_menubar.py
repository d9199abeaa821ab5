"""What the menu bar helper shows. rumps, which draws it, runs on macOS only and is not here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.cli.menubar import lines, title
from tests.cli.server_process import run


class Told:
    """Stands for the server that the helper tells to unload."""

    def __init__(self) -> None:
        self.unloaded: list[str] = []

    def tell(self, name: str, action: str) -> None:
        assert action == "unload"
        self.unloaded.append(name)


def model(name: str, state: str, num_in_flight: int = 0) -> dict[str, Any]:
    return {"id": name, "state": state, "num_in_flight": num_in_flight, "planned_bytes": 2 * 1024**3}


def test_what_is_in_memory_is_shown_and_what_is_idle_can_go() -> None:
    told = Told()
    models = [model("a", "ready"), model("b", "ready", 3), model("c", "cold"), model("d", "loading")]
    shown = lines(models, told)
    assert [line.text for line in shown] == ["Unload a (2.0 GiB)", "b: 3 requests", "d: loading"]
    assert [line.act is not None for line in shown] == [True, False, False]
    assert shown[0].act is not None
    shown[0].act()
    assert told.unloaded == ["a"]
    assert (title(models), title([]), title(None)) == ("MLX 3", "MLX", "MLX –")
    assert [line.text for line in lines(None, told)] == ["No server is running"]


@pytest.mark.skipif(sys.platform == "darwin", reason="it would run")
def test_elsewhere_it_says_what_to_do(tmp_path: Path) -> None:
    refused = run(tmp_path, "menubar")
    assert (refused.returncode, "is for macOS; mlx-manager ps" in refused.stderr) == (1, True)
