"""What a server knows of models that are not loaded: on the hub, on their way here, on the disk, and off it again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import HubUnavailable, InvalidRequest, MlxManagerError, ModelNotFound
from mlx_manager.hub.access import HubAccess
from mlx_manager.hub.downloads import Downloads
from mlx_manager.hub.foreign import ForeignModel
from mlx_manager.hub.gguf_import import Report, import_gguf
from mlx_manager.hub.inventory import Inventory
from mlx_manager.hub.judge import Fit, judge_fit
from mlx_manager.hub.removal import Removable, find_removable, remove
from mlx_manager.hub.search import ModelCard, Preview, SearchPage, SearchQuery

if TYPE_CHECKING:
    from mlx_manager.hub.client import HubClient


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One model, from wherever something is known of it."""

    entry: ModelEntry | None
    """None for a model on the hub that cannot be served."""
    is_on_disk: bool
    card: ModelCard | None
    """What the hub says; None where it was not asked, or does not answer about a model that is on the disk."""
    fit: Fit | None
    problem: str | None = None
    """Why there is no entry, no card or no fit."""


class HubDesk:
    """Calls that ask the hub or the disk run in a thread. They raise `MlxManagerError` that says what to do."""

    def __init__(
        self,
        access: HubAccess,
        inventory: Inventory,
        downloads: Downloads,
        *,
        options: LoadOptions,
        is_cpu_backend: bool,
    ) -> None:
        self.downloads = downloads
        self._access = access
        self._inventory = inventory
        self._options = options
        self._is_cpu_backend = is_cpu_backend
        self._client: HubClient | None = None

    async def search(self, query: SearchQuery) -> SearchPage:
        """Models on the hub, those on the disk marked."""
        return await asyncio.to_thread(self.search_now, query)

    async def show(self, name: str, revision: str | None = None) -> Shown:
        """A model's card and characteristics: from the disk where it is there, else as it would be."""
        return await asyncio.to_thread(self.show_now, name, revision)

    async def delete(self, name: str) -> Removable:
        """Delete a model from home or from the cache, and say what was freed."""
        found = await asyncio.to_thread(find_removable, self._inventory, self._access, name)
        await asyncio.to_thread(remove, found)
        return found

    async def find_importable(self) -> list[ForeignModel]:
        """Models of other programs on this machine that would have to be imported before they can be served."""
        return await asyncio.to_thread(self._inventory.foreign)

    async def import_gguf(self, source: Path, *, name: str, force: bool, report: Report) -> ModelEntry:
        """Make a model of the GGUF file `source`, as `gguf_import.import_gguf`; `report` is called from a thread."""
        return await asyncio.to_thread(self._import_now, source, name, force, report)

    def _import_now(self, source: Path, name: str, force: bool, report: Report) -> ModelEntry:
        home = self._inventory.models_folder.parent
        return import_gguf(home, source.expanduser(), name=name, force=force, report=report)

    def search_now(self, query: SearchQuery) -> SearchPage:
        """As `search`, in this thread."""
        page = self._ask().search(query)
        there = {entry.name for entry in self._inventory.entries()}
        hits = tuple(msgspec.structs.replace(hit, is_on_disk=hit.id in there) for hit in page.hits)
        return msgspec.structs.replace(page, hits=hits)

    def show_now(self, name: str, revision: str | None = None, *, asks_hub: bool = True) -> Shown:
        """As `show`, in this thread. Unless `asks_hub`, only about what is not on the disk."""
        entry = self._on_disk(name) if revision is None else None
        if entry is None:
            return self._preview(name, revision)
        if not asks_hub:
            return self._judge(entry, None, is_on_disk=True)
        try:
            card = self._ask().card(name)
        except (HubUnavailable, ModelNotFound) as error:
            shown = self._judge(entry, None, is_on_disk=True)
            return msgspec.structs.replace(shown, problem=shown.problem or error.message)
        return self._judge(entry, card, is_on_disk=True)

    def _on_disk(self, name: str) -> ModelEntry | None:
        try:
            return self._inventory.find(name)
        except ModelNotFound:
            # a name that is not here may be one on the hub; a path is not
            if name.count("/") != 1 or name.startswith((".", "/", "~")):
                raise
            return None

    def _preview(self, name: str, revision: str | None) -> Shown:
        client = self._ask()
        try:
            return client.preview(name, self._judge_preview, revision)
        except InvalidRequest as error:
            return Shown(
                entry=None, is_on_disk=False, card=client.card(name, revision), fit=None, problem=error.message
            )

    def _judge_preview(self, preview: Preview) -> Shown:
        return self._judge(preview.entry, preview.card, is_on_disk=False)

    def _judge(self, entry: ModelEntry, card: ModelCard | None, *, is_on_disk: bool) -> Shown:
        fit, problem = None, None
        try:
            fit = judge_fit(entry, self._options, None, is_cpu_backend=self._is_cpu_backend)
        except MlxManagerError as error:
            problem = error.message
        return Shown(entry=entry, is_on_disk=is_on_disk, card=card, fit=fit, problem=problem)

    def _ask(self) -> HubClient:
        """The client, made when it is first needed: its libraries take most of a second to import."""
        if self._client is None:
            from mlx_manager.hub.client import HubClient  # noqa: PLC0415

            self._client = HubClient(self._access)
        return self._client
