"""Searching the hub page by page, and looking at a model before it is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.catalog import LoadOptions, ModelKind
from mlx_manager.errors import HubUnavailable, InvalidRequest, ModelNotFound
from mlx_manager.hub.client import HubClient
from mlx_manager.hub.judge import judge_fit
from mlx_manager.hub.search import SearchQuery
from tests.hub.conftest import CONFIG, weights
from tests.hub.hub_server import PAGE_SIZE, HubServer, Repository


def add(hub: HubServer, name: str, **facts: Any) -> None:
    hub.repositories[name] = Repository({"config.json": b"{}"}, facts={"tags": ["mlx"], **facts})


def names(hub: HubServer, **query: Any) -> list[str]:
    return [hit.id for hit in HubClient(hub.access("/none")).search(SearchQuery(**query)).hits]


def test_a_search_follows_the_pages_of_the_hub(hub: HubServer) -> None:
    del hub.repositories["org/tiny"]
    for number in range(2 * PAGE_SIZE + 1):
        add(hub, f"org/m{number}", downloads=number)
    client = HubClient(hub.access("/none"))
    first = client.search(SearchQuery(limit=5))
    assert ([hit.id for hit in first.hits], first.has_more) == ([f"org/m{n}" for n in (6, 5, 4, 3, 2)], True)
    rest = client.search(SearchQuery(limit=5, offset=5))
    assert ([hit.id for hit in rest.hits], rest.has_more) == (["org/m1", "org/m0"], False)


def test_a_search_filters_and_sorts(hub: HubServer) -> None:
    add(hub, "org/popular", likes=9, downloads=1, pipeline_tag="image-text-to-text")
    add(hub, "else/plain", tags=["pytorch"], downloads=2)
    assert names(hub) == ["org/tiny", "org/popular"]
    assert names(hub, sort="likes") == ["org/popular", "org/tiny"]
    assert names(hub, text="POP") == ["org/popular"]
    assert names(hub, author="else") == []
    assert names(hub, author="else", is_any_format=True) == ["else/plain"]
    assert names(hub, kind=ModelKind.VISION) == ["org/popular"]


def test_a_busy_or_broken_hub_is_waited_for_by_the_client_itself(hub: HubServer) -> None:
    hub.faults.busy = 1
    assert names(hub) == ["org/tiny"]


def test_a_card_tells_what_a_download_would_bring(hub: HubServer) -> None:
    repository = hub.repositories["org/tiny"]
    repository.facts["cardData"] = {"license": "mit", "base_model": ["org/big"]}
    card = HubClient(hub.access("/none")).card("org/tiny")
    assert (card.commit, card.license, card.base_models) == (repository.commit, "mit", ("org/big",))
    assert card.description == "# Tiny\n\nAnswers little."
    assert {file.path for file in card.files if not file.is_wanted} == {"pytorch_model.bin", "original/params.json"}
    assert card.download_bytes == sum(len(repository.files[file.path]) for file in card.files if file.is_wanted)


def test_the_card_of_a_gated_model_lacks_only_its_text(hub: HubServer) -> None:
    hub.repositories["org/tiny"].is_gated = True
    card = HubClient(hub.access("/none")).card("org/tiny")
    assert (card.hit.is_gated, card.description) == (True, "")


@pytest.mark.parametrize("num_bytes", [3_000_000, 10])
def test_a_model_is_described_before_it_is_downloaded(hub: HubServer, num_bytes: int) -> None:
    config = CONFIG | {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 100}
    files = {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": b"x" * 5000,
        "chat_template.jinja": b"{{ tools }}",
        "model.safetensors": weights(num_bytes),
    }
    hub.repositories["org/far"] = Repository(files)
    with_folder: list[Path] = []

    def describe(preview: Any) -> Any:
        with_folder.append(Path(preview.entry.path))
        assert (Path(preview.entry.path) / "tokenizer.json").stat().st_size == 5000
        return preview.entry, judge_fit(preview.entry, LoadOptions(), 8 * 1024**3, is_cpu_backend=True)

    entry, fit = HubClient(hub.access("/none")).preview("org/far", describe)
    assert (entry.name, entry.size_bytes) == ("org/far", len(files["model.safetensors"]))
    assert (entry.num_parameters, entry.max_context, entry.has_tools) == (num_bytes, 2048, True)
    assert fit.footprint.weights_bytes == num_bytes
    assert not with_folder[0].exists()
    # of the weights no more than the header was asked for
    assert set(hub.ranges("model.safetensors") + hub.ranges("far::model.safetensors")) == {
        f"bytes=0-{min(65536, entry.size_bytes) - 1}"
    }


def test_what_is_not_there_or_not_servable_is_refused(hub: HubServer) -> None:
    client = HubClient(hub.access("/none"))
    hub.repositories["org/torch"] = Repository({"pytorch_model.bin": b"PK"})
    with pytest.raises(InvalidRequest, match=r"holds no \*\.safetensors"):
        client.preview("org/torch", lambda preview: None)
    with pytest.raises(ModelNotFound, match="There is no model 'org/none'"):
        client.card("org/none")
    hub.repositories["org/evil"] = Repository({"../../out.json": b"{}", "model.safetensors": weights(10)})
    with pytest.raises(InvalidRequest, match="leads out of its folder"):
        client.preview("org/evil", lambda preview: None)
    hub.faults.busy = 1
    with pytest.raises(HubUnavailable) as refused:
        client.card("org/tiny")
    assert refused.value.retry_after_s == 0.0
