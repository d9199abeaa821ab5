"""A model is brought into the shared cache whole and checked, whatever goes wrong on the way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from mlx_manager.errors import (
    Conflict,
    DownloadFailed,
    HubAccessDenied,
    HubUnavailable,
    InvalidRequest,
    MlxManagerError,
    ModelNotFound,
    NotEnoughDisk,
)
from mlx_manager.hub import Inventory
from mlx_manager.hub.access import HubAccess
from mlx_manager.hub.download import DownloadRequest
from mlx_manager.hub.fetch import Progress, fetch, sole_fetcher
from mlx_manager.hub.hub_cache import PARTIAL_SUFFIX
from tests.hub.conftest import weights
from tests.hub.hub_server import HubServer, Repository, etag_of

WEIGHTS = "model.safetensors"


def pull(
    access: HubAccess, model: str = "org/tiny", revision: str | None = None, *include: str
) -> tuple[Path, Progress]:
    """What the fetching process does, in this one."""
    progress = Progress()
    return fetch(DownloadRequest(model=model, revision=revision, include=include), access, progress), progress


def blobs(cache: Path, model: str = "org/tiny") -> list[Path]:
    return sorted((cache / f"models--{model.replace('/', '--')}" / "blobs").glob("*"))


def test_a_model_lies_in_the_cache_as_every_other_tool_expects(hub: HubServer, tmp_path: Path) -> None:
    folder, progress = pull(hub.access(tmp_path))
    repository = hub.repositories["org/tiny"]
    assert folder == tmp_path / "models--org--tiny" / "snapshots" / repository.commit
    there = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert there == {name: repository.files[name] for name in ("README.md", "config.json", "tokenizer.json", WEIGHTS)}
    assert progress.done_bytes == progress.total_bytes == sum(map(len, there.values()))
    assert (tmp_path / "models--org--tiny" / "refs" / "main").read_text() == repository.commit
    (scanned,) = scan_cache_dir(tmp_path).repos
    assert (scanned.repo_id, scanned.nb_files) == ("org/tiny", 4)
    # the client itself finds all of it there
    num_asked = len(hub.ranges(WEIGHTS))
    found = snapshot_download(
        "org/tiny", cache_dir=tmp_path, endpoint=hub.url, allow_patterns=["*.json", "*.safetensors"]
    )
    assert (Path(found), len(hub.ranges(WEIGHTS))) == (folder, num_asked)


def test_a_connection_cut_in_the_middle_is_taken_up_where_it_broke(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.cut_after[f"{WEIGHTS}"] = [30_000, 20_000]
    folder, progress = pull(hub.access(tmp_path))
    assert (folder / WEIGHTS).read_bytes() == hub.repositories["org/tiny"].files[WEIGHTS]
    assert hub.ranges(f"tiny::{WEIGHTS}")[:1] == [None]
    assert hub.ranges(f"tiny::{WEIGHTS}")[1:] == ["bytes=30000-", "bytes=50000-"]
    assert progress.done_bytes == progress.total_bytes


def test_what_an_earlier_download_left_is_not_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    content = hub.repositories["org/tiny"].files[WEIGHTS]
    blob = tmp_path / "models--org--tiny" / "blobs" / etag_of(content)
    blob.parent.mkdir(parents=True)
    blob.with_name(blob.name + PARTIAL_SUFFIX).write_bytes(content[:40_000])
    folder, _ = pull(hub.access(tmp_path))
    assert (folder / WEIGHTS).read_bytes() == content
    assert hub.ranges(f"tiny::{WEIGHTS}") == ["bytes=40000-"]


def test_a_hub_that_knows_no_ranges_sends_the_file_again(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.cut_after[WEIGHTS] = [30_000]
    hub.faults.ignores_ranges = True
    folder, progress = pull(hub.access(tmp_path))
    assert (folder / WEIGHTS).read_bytes() == hub.repositories["org/tiny"].files[WEIGHTS]
    assert progress.done_bytes == progress.total_bytes


@pytest.mark.parametrize("fault", ["damaged", "short"])
@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_wrong_content_is_thrown_away_and_fetched_once_more(
    hub: HubServer, tmp_path: Path, fault: str, name: str
) -> None:
    getattr(hub.faults, fault)[name] = 1
    folder, progress = pull(hub.access(tmp_path))
    assert (folder / name).read_bytes() == hub.repositories["org/tiny"].files[name]
    assert progress.done_bytes == progress.total_bytes


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [("damaged", r"its checksum is \w+… instead of \w+…"), ("short", r"it ends after \d+ of its \d+")],
)
def test_content_that_stays_wrong_fails_and_leaves_nothing_of_it(
    hub: HubServer, tmp_path: Path, fault: str, complaint: str
) -> None:
    getattr(hub.faults, fault)[WEIGHTS] = 10
    with pytest.raises(DownloadFailed, match=rf"model\.safetensors arrived wrong 2 times: {complaint}"):
        pull(hub.access(tmp_path))
    assert len(hub.ranges(f"tiny::{WEIGHTS}")) == 2
    assert not [blob for blob in blobs(tmp_path) if etag_of(hub.repositories["org/tiny"].files[WEIGHTS]) in blob.name]
    assert Inventory(tmp_path, cache=tmp_path).entries() == []


def test_a_declared_size_that_is_wrong_fails(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/tiny"].declared_sizes[WEIGHTS] = 50_000
    with pytest.raises(DownloadFailed, match="it has more than its 50000 bytes"):
        pull(hub.access(tmp_path))


def test_a_busy_hub_is_waited_for_as_it_asks(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.busy = 2
    folder, _ = pull(hub.access(tmp_path))
    assert (folder / WEIGHTS).exists()
    assert "the hub is busy: waiting 0 s" in capsys.readouterr().out


def test_a_hub_that_stays_busy_is_given_up(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.busy = 100
    with pytest.raises(HubUnavailable, match="was busy"):
        pull(hub.access(tmp_path))
    assert len(hub.asked) == 5


def test_too_little_disk_is_said_before_anything_is_written(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/tiny"].declared_sizes[WEIGHTS] = 10**18
    with pytest.raises(NotEnoughDisk, match=r"needs \d+\.\d TiB more, and .* are free in .*HF_HOME"):
        pull(hub.access(tmp_path))
    assert blobs(tmp_path) == []


def test_a_gated_model_says_where_its_terms_are_and_opens_with_a_token(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/tiny"].is_gated = True
    with pytest.raises(HubAccessDenied) as refused:
        pull(hub.access(tmp_path))
    assert f"accept its terms on {hub.url}/org/tiny, then set a token" in refused.value.message
    assert "hf_token" in refused.value.message
    folder, _ = pull(hub.access(tmp_path, token=hub.token))
    assert (folder / WEIGHTS).exists()


def test_a_private_model_opens_with_a_token(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/tiny"].is_private = True
    with pytest.raises(ModelNotFound, match=r"There is no model 'org/tiny' on .*, or it is private.*hf_token"):
        pull(hub.access(tmp_path))
    with pytest.raises(HubAccessDenied, match=r"refuses the token .*use a token of your account"):
        pull(hub.access(tmp_path, token="hf_wrong"))
    assert (pull(hub.access(tmp_path, token=hub.token))[0] / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        (("org/none", None, ()), ModelNotFound, "There is no model 'org/none'"),
        (("org/tiny", "v9", ()), ModelNotFound, "org/tiny has no such revision"),
        (("org/tiny", None, ("*.onnx",)), InvalidRequest, r"no file that matches \*\.onnx\. It has: README\.md"),
        (("org/gguf", None, ()), InvalidRequest, r"holds GGUF files and no MLX model.*--include q4\.gguf"),
        (("org/torch", None, ()), InvalidRequest, r"holds no \*\.safetensors.*It has: pytorch_model\.bin\."),
        (("no good!", None, ()), InvalidRequest, "is not the name of a model"),
    ],
)
def test_what_cannot_be_had_is_explained(
    hub: HubServer,
    tmp_path: Path,
    wanted: tuple[str, str | None, tuple[str, ...]],
    error: type[MlxManagerError],
    message: str,
) -> None:
    hub.repositories["org/gguf"] = Repository({"q4.gguf": b"GGUF"})
    hub.repositories["org/torch"] = Repository({"pytorch_model.bin": b"PK"})
    model, revision, include = wanted
    with pytest.raises(error, match=message):
        pull(hub.access(tmp_path), model, revision, *include)


def test_a_hub_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with pytest.raises(HubUnavailable, match=r"http://127\.0\.0\.1:9 cannot be reached: .*refused.*HF_ENDPOINT"):
        pull(HubAccess(endpoint="http://127.0.0.1:9", cache=str(tmp_path)))


def test_only_the_files_asked_for_are_fetched(hub: HubServer, tmp_path: Path) -> None:
    folder, _ = pull(hub.access(tmp_path), "org/tiny", "main", "*.json")
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == [
        "config.json",
        "original/params.json",
        "tokenizer.json",
    ]


def test_a_new_commit_fetches_only_what_changed(hub: HubServer, tmp_path: Path) -> None:
    first, _ = pull(hub.access(tmp_path))
    hub.repositories["org/tiny"].files["config.json"] = json.dumps({"model_type": "qwen3"}).encode()
    hub.asked.clear()
    second, _ = pull(hub.access(tmp_path))
    assert first != second
    assert re.search("qwen3", (second / "config.json").read_text())
    assert hub.ranges(f"tiny::{WEIGHTS}") == []
    assert Inventory(tmp_path / "home", cache=tmp_path).find("org/tiny").architecture == "qwen3"


def test_files_of_equal_content_are_fetched_once(hub: HubServer, tmp_path: Path) -> None:
    content = weights(5_000, seed=3)
    hub.repositories["org/twice"] = Repository({"a.safetensors": content, "b.safetensors": content})
    folder, progress = pull(hub.access(tmp_path), "org/twice")
    assert (folder / "a.safetensors").read_bytes() == (folder / "b.safetensors").read_bytes() == content
    assert (progress.done_bytes, len(blobs(tmp_path, "org/twice"))) == (len(content), 1)


def test_one_process_at_a_time_downloads_a_model(hub: HubServer, tmp_path: Path) -> None:
    access = hub.access(tmp_path)
    with sole_fetcher(access, "org/tiny"):
        with (
            pytest.raises(Conflict, match="org/tiny is being downloaded by another process"),
            sole_fetcher(access, "org/tiny"),
        ):
            pass
        with sole_fetcher(access, "org/other"):
            pass
