"""Which OpenBLAS is found for workers, and when it is preloaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_manager.pool import find_openblas, runs_on_linux_cpu, worker_environment


def library(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder / name


def test_the_system_comes_before_the_wheel(tmp_path: Path) -> None:
    system = library(tmp_path / "lib", "libopenblas.so.0")
    wheel = library(tmp_path / "site/opencv_python.libs", "libopenblasp-r0-59ffcd50.3.15.so")
    assert find_openblas([tmp_path / "none", tmp_path / "lib"], wheel.parent) == system
    assert find_openblas([tmp_path / "none"], wheel.parent) == wheel


def test_folders_are_tried_in_order_and_threaded_builds_first(tmp_path: Path) -> None:
    library(tmp_path / "second", "libopenblasp.so.0")
    library(tmp_path / "first", "libopenblas.so.0")
    threaded = library(tmp_path / "first", "libopenblasp.so.0")
    assert find_openblas([tmp_path / "first", tmp_path / "second"], tmp_path) == threaded


@pytest.mark.parametrize("name", ["libopenblas64_.so.0", "libblas.so.3", "libopenblas.a"])
def test_other_libraries_are_passed_over(tmp_path: Path, name: str) -> None:
    library(tmp_path, name)
    assert find_openblas([tmp_path], tmp_path) is None


def test_paths_the_loader_would_split_are_passed_over(tmp_path: Path) -> None:
    library(tmp_path / "a b", "libopenblas.so.0")
    library(tmp_path / "a:b", "libopenblas.so.0")
    assert find_openblas([tmp_path / "a b", tmp_path / "a:b"], tmp_path) is None


def test_a_preload_that_is_there_stays() -> None:
    assert worker_environment({"LD_PRELOAD": "/mine.so", "A": "b"}) == {"LD_PRELOAD": "/mine.so", "A": "b"}


@pytest.mark.skipif(not runs_on_linux_cpu(), reason="workers preload a BLAS only where MLX computes on a Linux CPU")
def test_what_is_preloaded_here_exports_plain_cblas() -> None:
    environment = worker_environment({"PATH": "/usr/bin"})
    assert environment["PATH"] == "/usr/bin"
    check = "import ctypes; ctypes.CDLL(None).cblas_sgemm; ctypes.CDLL(None).openblas_get_num_threads"
    ended = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
