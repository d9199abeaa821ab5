"""Finds the model that the setting `draft_model` of another one names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mlx_manager.catalog import LoadOptions, ModelEntry, ModelKind
from mlx_manager.errors import InvalidRequest, ModelLoadFailed
from mlx_manager.hub.model_folder import read_entry


def check_draft(options: LoadOptions, find: Callable[[str], ModelEntry]) -> None:
    """Raises `InvalidRequest` for settings with whose draft model a load would fail, as far as files tell."""
    if options.draft_model is None:
        return
    try:
        find(options.draft_model)
    except ModelLoadFailed as error:
        raise InvalidRequest(error.message, param="draft_model") from None
    if not options.max_draft_tokens:
        raise InvalidRequest(
            f"draft_model is {options.draft_model!r} and max_draft_tokens is 0, so that it would guess nothing: set "
            "max_draft_tokens with it, to 4 say, or take draft_model away.",
            param="max_draft_tokens",
        )


def find_draft_entry(said: str, target: ModelEntry, name: str, entries: Mapping[str, ModelEntry]) -> ModelEntry:
    """The draft model of `target`, whose setting says `said`: the model `name` of `entries`, else that in the folder.

    Raises `ModelLoadFailed`, which names the setting and the fix.
    """
    complaint = f"The draft_model of {target.name} is {said!r}"
    if target.kind in (ModelKind.EMBEDDING, ModelKind.RERANKER):
        raise ModelLoadFailed(f"{complaint}, but it generates nothing that could be guessed: take draft_model away.")
    entry = entries.get(name)
    if entry is None:
        folder = Path(said).expanduser()
        if not folder.is_dir():
            hint = f" Download it: mlx-manager pull {said}." if said.count("/") == 1 and said[0] not in "./~" else ""
            raise ModelLoadFailed(
                f"{complaint}, and there is no such model on this machine, nor a folder.{hint} Else set draft_model to "
                f"one of: {', '.join(sorted(entries)) or 'none'}; or take it away."
            )
        try:
            entry = read_entry(folder, said)
        except InvalidRequest as error:
            raise ModelLoadFailed(f"{complaint}: {error.message} Set draft_model to another model.") from None
    if entry.kind is not ModelKind.TEXT:
        raise ModelLoadFailed(
            f"{complaint}, which is no text model but of the kind {entry.kind}: set it to one that is."
        )
    return entry
