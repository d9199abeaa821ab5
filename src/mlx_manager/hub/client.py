"""Asks the hub: searches, model cards, and what a model would be like before it is downloaded.

Importing this takes most of a second, for the hub's client: whoever must start quickly imports it where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.hf_api import ModelInfo, ModelSort_T
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from mlx_manager.catalog import ModelKind
from mlx_manager.errors import InvalidRequest
from mlx_manager.hub.access import HubAccess
from mlx_manager.hub.characteristics import has_thinking, has_tools
from mlx_manager.hub.model_folder import read_entry
from mlx_manager.hub.refusals import CLIENT_ERRORS, translate
from mlx_manager.hub.repository import RepositoryFile, choose_files, repository_files
from mlx_manager.hub.safetensors_header import DTYPE_BITS
from mlx_manager.hub.search import HubFile, ModelCard, Preview, SearchHit, SearchPage, SearchQuery

Described = TypeVar("Described")

_TIMEOUT_S = 20.0
_MLX = "mlx"
_SORTS: dict[str, ModelSort_T] = {
    "downloads": "downloads",
    "likes": "likes",
    "updated": "last_modified",
    "created": "created_at",
    "trending": "trending_score",
}
_TASKS = {
    ModelKind.TEXT: "text-generation",
    ModelKind.VISION: "image-text-to-text",
    ModelKind.EMBEDDING: "feature-extraction",
    ModelKind.RERANKER: "text-ranking",
}
_MAX_CARD_BYTES = 256 * 1024
_MAX_SMALL_BYTES = 64 * 1024**2
"""Of a config or an index; larger ones are not read for a preview."""
_FIRST_BYTES = 64 * 1024
"""Most headers of safetensors files are shorter, so that one request is enough."""
_MAX_HEADER_BYTES = 100_000_000
_FRONT_MATTER = re.compile(r"\A\s*---\n.*?\n---\s*", re.DOTALL)
_BITS_TAG = re.compile(r"(\d)-?bit")


class HubClient:
    """Every method blocks, and raises `MlxManagerError` that says what to do."""

    def __init__(self, access: HubAccess) -> None:
        self._access = access
        self._api = HfApi(endpoint=access.endpoint, token=access.token)

    def search(self, query: SearchQuery) -> SearchPage:
        """Models that match, best first."""
        wanted = query.offset + query.limit + 1
        with self._translating(""):
            found = self._api.list_models(
                search=query.text or None,
                author=query.author,
                filter=[*query.tags, *([] if query.is_any_format else [_MLX])] or None,
                pipeline_tag=_TASKS[query.kind] if query.kind else None,
                num_parameters=query.num_parameters,
                sort=_SORTS[query.sort],
                limit=wanted,
                expand=[
                    "downloads",
                    "likes",
                    "lastModified",
                    "pipeline_tag",
                    "tags",
                    "gated",
                    "private",
                    "safetensors",
                    "config",
                ],
            )
            models = list(islice(found, query.offset, wanted))
        return SearchPage(
            hits=tuple(_describe_hit(model) for model in models[: query.limit]), has_more=len(models) > query.limit
        )

    def card(self, model_id: str, revision: str | None = None) -> ModelCard:
        """What the hub says of a model."""
        with self._translating(model_id):
            return self._card(model_id, self._info(model_id, revision))

    def preview(
        self, model_id: str, describe: Callable[[Preview], Described], revision: str | None = None
    ) -> Described:
        """What `describe` makes of a model that is not here, called while a folder stands in for it.

        The folder holds the model's small files, and of its weights the headers alone, in files of the right size that
        take no room on the disk. Raises `InvalidRequest` for what could not be served.
        """
        with self._translating(model_id), TemporaryDirectory(prefix="mlx-manager-preview-") as made:
            info = self._info(model_id, revision)
            folder = Path(made) / "model"
            for file in choose_files(model_id, repository_files(info)):
                self._lay_out(model_id, str(info.sha), file, folder)
            entry = read_entry(folder, model_id)
            return describe(Preview(card=self._card(model_id, info), entry=entry))

    def _info(self, model_id: str, revision: str | None) -> ModelInfo:
        return self._api.model_info(model_id, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)

    def _card(self, model_id: str, info: ModelInfo) -> ModelCard:
        files = repository_files(info)
        try:
            wanted = {file.path for file in choose_files(model_id, files)}
        except InvalidRequest:
            wanted = set()
        facts: dict[str, Any] = info.card_data.to_dict() if info.card_data else {}  # type: ignore[no-untyped-call]
        base = facts.get("base_model") or ()
        return ModelCard(
            hit=_describe_hit(info),
            commit=str(info.sha),
            license=_as_text(facts.get("license")),
            base_models=(base,) if isinstance(base, str) else tuple(map(str, base)),
            description=self._description(model_id, str(info.sha), files),
            files=tuple(
                HubFile(path=file.path, size_bytes=file.size_bytes, is_wanted=file.path in wanted) for file in files
            ),
            download_bytes=sum(file.size_bytes for file in files if file.path in wanted),
            page=f"{self._access.endpoint}/{model_id}",
        )

    def _description(self, model_id: str, commit: str, files: Sequence[RepositoryFile]) -> str:
        readme = next((file for file in files if file.path == "README.md"), None)
        if readme is None or not readme.size_bytes:
            return ""
        try:
            text = self._read(model_id, commit, readme, 0, min(readme.size_bytes, _MAX_CARD_BYTES))
        except GatedRepoError:
            return ""
        return _FRONT_MATTER.sub("", text.decode(errors="replace")).strip()

    def _lay_out(self, model_id: str, commit: str, file: RepositoryFile, folder: Path) -> None:
        """Write what a preview needs of `file`: all of a small one, the header of weights, of others the size."""
        relative = PurePosixPath(file.path)
        if relative.is_absolute() or ".." in relative.parts:
            raise InvalidRequest(f"{model_id} holds a file named {file.path!r}, which leads out of its folder.")
        written = folder / relative
        written.parent.mkdir(parents=True, exist_ok=True)
        content = b""
        if file.path.endswith(".safetensors"):
            content = self._read(model_id, commit, file, 0, min(file.size_bytes, _FIRST_BYTES))
            header_bytes = 8 + int.from_bytes(content[:8], "little")
            if len(content) < header_bytes <= min(_MAX_HEADER_BYTES, file.size_bytes):
                content += self._read(model_id, commit, file, len(content), header_bytes)
        elif file.path != "tokenizer.json" and file.path.endswith((".json", ".jinja", ".md")):
            content = self._read(model_id, commit, file, 0, min(file.size_bytes, _MAX_SMALL_BYTES))
        with written.open("wb") as stream:
            stream.write(content)
            # a hole, not zeros: it takes no room
            stream.truncate(max(file.size_bytes, len(content)))

    def _read(self, model_id: str, commit: str, file: RepositoryFile, begin: int, end: int) -> bytes:
        """The bytes from `begin` to `end` of a file."""
        if begin >= end:
            return b""
        url = hf_hub_url(model_id, file.path, revision=commit, endpoint=self._access.endpoint)
        headers = build_hf_headers(token=self._access.token)
        asked = {**headers, "Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}"}
        with get_session().stream("GET", url, headers=asked, timeout=_TIMEOUT_S) as response:
            hf_raise_for_status(response)
            skipped = begin if response.status_code == 200 else 0
            wanted = skipped + end - begin
            received = bytearray()
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) >= wanted:
                    break
        return bytes(received[skipped:wanted])

    @contextmanager
    def _translating(self, model_id: str) -> Iterator[None]:
        try:
            yield
        except CLIENT_ERRORS as error:
            raise translate(error, model_id, self._access) from error


def _describe_hit(info: ModelInfo) -> SearchHit:
    counts: dict[str, int] = dict(info.safetensors.parameters) if info.safetensors else {}
    tags = tuple(info.tags or ())
    config: Mapping[str, object] = info.config or {}
    bits = _bits_of(tags)
    template = _template_of(config)
    return SearchHit(
        id=info.id,
        task=info.pipeline_tag,
        downloads=info.downloads,
        likes=info.likes,
        updated_unix_s=int(info.last_modified.timestamp()) if info.last_modified else None,
        num_parameters=_num_parameters(counts, tags),
        size_bytes=sum(count * DTYPE_BITS.get(dtype, 16) // 8 for dtype, count in counts.items()) or None,
        is_gated=bool(info.gated),
        is_private=bool(info.private),
        tags=tags,
        architecture=_as_text(config.get("model_type")),
        quantization=f"{bits}-bit" if bits else None,
        has_tools=has_tools(template),
        has_thinking=has_thinking(template),
    )


def _num_parameters(counts: dict[str, int], tags: Sequence[str]) -> int | None:
    """Packed weights count as what they stand for, where a tag says their width: "4-bit"."""
    packed = counts.get("U32", 0)
    if not packed:
        return sum(counts.values()) or None
    bits = _bits_of(tags)
    # what is not packed is mostly scales, which are no parameters
    return packed * DTYPE_BITS["U32"] // bits if bits else None


def _bits_of(tags: Sequence[str]) -> int | None:
    return next((int(found[1]) for tag in tags if (found := _BITS_TAG.fullmatch(tag))), None)


def _template_of(config: Mapping[str, object]) -> str:
    """The chat template's text, where the hub has read it; of several all."""
    tokenizer = config.get("tokenizer_config")
    said = tokenizer.get("chat_template") if isinstance(tokenizer, dict) else None
    return str(config.get("chat_template_jinja") or said or "")


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None
