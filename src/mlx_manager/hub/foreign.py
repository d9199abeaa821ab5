"""Models in the folders of other programs that cannot be served as they are: GGUF files, to be imported first."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from mlx_manager.hub.hub_cache import model_id_of, snapshot_folders

_KNOWN_FOLDERS = {
    "lmstudio": ("~/.lmstudio/models", "~/.cache/lm-studio/models"),
    "ollama": ("~/.ollama/models", "/usr/share/ollama/.ollama/models"),
}
"""Where programs keep their models, by the word that stands for them in `scan_folders`."""
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_MAX_DEPTH = 3


class ForeignModel(msgspec.Struct, frozen=True, kw_only=True):
    """A GGUF file of another program's."""

    name: str
    path: str
    size_bytes: int
    program: str
    """Whose it is: Ollama, or the folder it lies in."""
    suggested_name: str
    """For the import: letters, digits and . _ - only."""

    @property
    def how_to_serve(self) -> str:
        """The command that makes it a model of ours."""
        return shlex.join(("mlx-manager", "import", self.path, "--name", self.suggested_name))


def resolve_folders(names: Sequence[str]) -> tuple[Path, ...]:
    """The folders that `names` stand for: paths, or lmstudio and ollama. What does not exist is left out."""
    folders: list[Path] = []
    for name in names:
        own = os.environ.get("OLLAMA_MODELS") if name == "ollama" else None
        candidates = (own,) if own else _KNOWN_FOLDERS.get(name, (name,))
        folders += [Path(candidate).expanduser().absolute() for candidate in candidates]
    return tuple(folder for folder in folders if folder.is_dir())


def find_foreign(cache: Path | None, folders: Sequence[Path]) -> list[ForeignModel]:
    """The GGUF models in the cache of the hub and in `folders`, by name."""
    found: list[ForeignModel] = []
    for folder in folders:
        if (folder / "manifests").is_dir() and (folder / "blobs").is_dir():
            found += _ollama_models(folder)
        else:
            found += _loose_files(folder, str(folder))
    for snapshot in snapshot_folders(cache) if cache is not None else ():
        model_id = model_id_of(snapshot)
        found += _loose_files(snapshot, "Hugging Face", prefix=f"{model_id}/")
    return sorted(found, key=lambda model: (model.name, model.path))


def _ollama_models(folder: Path) -> Iterator[ForeignModel]:
    """Ollama keeps one manifest a model, at manifests/HOST/OWNER/NAME/TAG, and its GGUF among the blobs by digest."""
    for manifest in sorted((folder / "manifests").glob("*/*/*/*")):
        try:
            layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
            digest = next(layer["digest"] for layer in layers if layer["mediaType"] == _OLLAMA_MODEL)
            blob = folder / "blobs" / digest.replace(":", "-")
            size_bytes = blob.stat().st_size
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            # half pulled, or of a form that is not known here: nothing that could be imported
            continue
        owner, name, tag = manifest.parts[-3:]
        short = f"{name}:{tag}" if owner == "library" else f"{owner}/{name}:{tag}"
        yield ForeignModel(
            name=short,
            path=str(blob),
            size_bytes=size_bytes,
            program="Ollama",
            suggested_name=_as_name(name if tag == "latest" else f"{name}-{tag}"),
        )


def _loose_files(folder: Path, program: str, prefix: str = "") -> Iterator[ForeignModel]:
    for file in sorted(_files_below(folder, _MAX_DEPTH)):
        # the parts of a vision model that see lie beside it, and are no model of their own
        if file.suffix == ".gguf" and not file.name.startswith("mmproj"):
            yield ForeignModel(
                name=prefix + file.relative_to(folder).as_posix(),
                path=str(file),
                size_bytes=file.stat().st_size,
                program=program,
                suggested_name=_as_name(file.stem),
            )


def _files_below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        children = list(folder.iterdir())
    except OSError:
        return
    for child in children:
        if child.is_dir() and depth > 1:
            yield from _files_below(child, depth - 1)
        elif child.is_file():
            yield child


def _as_name(text: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text)
