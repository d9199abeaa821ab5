"""The files of a model's repository on the hub, and which of them serving it takes."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub.hf_api import ModelInfo

from mlx_manager.errors import InvalidRequest

_WANTED = ("*.json", "*.jsonl", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken", "README.md", "LICENSE*")
"""No Python code: nothing of a repository is ever run here."""
_LEFT_OUT = ("original/*", "onnx/*", "openvino/*", "consolidated*.safetensors")
"""The same weights once more, in forms that are not served."""


@dataclass(frozen=True)
class RepositoryFile:
    """One file as the hub declares it."""

    path: str
    size_bytes: int
    blob_id: str
    """Its git hash (SHA-1 of a header and the content); that of a pointer where `sha256` is given."""
    sha256: str | None

    @property
    def etag(self) -> str:
        """Its name among the blobs of the cache."""
        return self.sha256 or self.blob_id


def repository_files(found: ModelInfo) -> list[RepositoryFile]:
    """The files of a repository that was asked for with `files_metadata`."""
    return [
        RepositoryFile(
            path=sibling.rfilename,
            size_bytes=(sibling.lfs.size if sibling.lfs else sibling.size) or 0,
            blob_id=sibling.blob_id or "",
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
        )
        for sibling in found.siblings or []
    ]


def choose_files(model_id: str, files: Sequence[RepositoryFile], include: Sequence[str] = ()) -> list[RepositoryFile]:
    """What serving the model takes, or what matches the patterns of `include`.

    Raises `InvalidRequest` where that leaves nothing, or no weights, and says what is there instead.
    """
    if include:
        chosen = [file for file in files if _matches(file.path, include)]
        if not chosen:
            raise InvalidRequest(
                f"{model_id} has no file that matches {', '.join(include)}. It has: {_name_some(files)}.",
                param="include",
            )
        return chosen
    chosen = [file for file in files if _matches(file.path, _WANTED) and not _matches(file.path, _LEFT_OUT)]
    if not any(file.path.endswith(".safetensors") for file in chosen):
        ggufs = [file for file in files if file.path.endswith(".gguf")]
        if ggufs:
            raise InvalidRequest(
                f"{model_id} holds GGUF files and no MLX model. Fetch one with --include {ggufs[0].path}, then import "
                "it: mlx-manager import FILE.gguf. Or search for a conversion."
            )
        raise InvalidRequest(f"{model_id} holds no *.safetensors, so it cannot be served. It has: {_name_some(files)}.")
    return chosen


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _name_some(files: Sequence[RepositoryFile]) -> str:
    names = [file.path for file in files]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
