"""A GGUF file imported into the inventory. The conversion needs MLX, so a process of its own does it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import ErrorInfo, InvalidRequest, MlxManagerError
from mlx_manager.hub.inventory import Inventory

Report = Callable[[str, float], None]
"""Takes what is being done, for people, and how much of the whole is done, 0 to 1."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


class ConvertLine(msgspec.Struct, frozen=True):
    """One line that the converting process prints: how far it is, or why it failed."""

    stage: str = ""
    fraction: float = 0.0
    error: ErrorInfo | None = None


def import_gguf(
    home: Path, source: Path, *, name: str, force: bool, report: Report, chat_template: Path | None = None
) -> ModelEntry:
    """Make the model of the GGUF file `source` part of the inventory under `name`, which may be `org/name`.

    The file `chat_template` holds the template to take in place of the one in `source`.
    Raises `InvalidRequest` for what cannot be imported, `MlxManagerError` when the conversion breaks.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be a model's name: it takes letters, digits, . _ - and one / inside.")
    if not source.is_file():
        raise InvalidRequest(f"There is no file {source}.")
    if chat_template is not None and not chat_template.is_file():
        raise InvalidRequest(f"There is no file {chat_template}.")
    inventory = Inventory(home)
    target = inventory.models_folder / name
    arguments = [str(source), str(target), *(["--force"] if force else [])]
    if chat_template is not None:
        arguments += ["--chat-template", str(chat_template)]
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            [sys.executable, "-m", "mlx_manager.worker.convert", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process:
            failure = _follow(process, report)
        if failure is not None:
            raise MlxManagerError.from_info(failure)
        if process.returncode != 0:
            errors.seek(0)
            last_words = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
            raise MlxManagerError(
                f"The conversion of {source} ended with exit code {process.returncode}: {last_words[0]}"
            )
    return inventory.find(name)


def _follow(process: subprocess.Popen[bytes], report: Report) -> ErrorInfo | None:
    """Report the lines of the process until it ends. Returns the error that it reported, if it did."""
    assert process.stdout is not None
    failure = None
    for raw in process.stdout:
        line = msgspec.json.decode(raw, type=ConvertLine)
        if line.error is not None:
            failure = line.error
        else:
            report(line.stage, line.fraction)
    return failure
