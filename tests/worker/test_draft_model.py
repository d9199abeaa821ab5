"""A draft model loaded beside its target: what it takes is counted, and one that cannot guess for it is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import msgspec
import pytest
from mlx_lm.models.mamba import Model as Mamba
from mlx_lm.models.mamba import ModelArgs as MambaArgs

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.hub import Inventory
from mlx_manager.ipc import FromWorker, ServingReport, StepDone
from mlx_manager.ir import Event, GenerationRequest, PartDelta, Sampling, TokenPrompt
from mlx_manager.worker.load import load
from mlx_manager.worker.serving import Serving
from tests.worker.test_half_precision import write_tiny_llama

BLOCK_BYTES = 32 * 512
"""Of the tiny model's keys and values."""
OPTIONS = LoadOptions(kv_budget_bytes=40 * BLOCK_BYTES, max_draft_tokens=4, draft_model="small")


@pytest.fixture(scope="module")
def models(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelEntry]:
    """Two of one kind, `tiny` and `small`, and one with recurrent layers, of one tokenizer; one of another."""
    home = tmp_path_factory.mktemp("home")
    for name in ("tiny", "small", "other", "recurrent", "unknown"):
        write_tiny_llama(home / "models" / name, starter_folder)
    tokenizer = home / "models" / "other" / "tokenizer.json"
    vocabulary = json.loads(tokenizer.read_text())
    tokens = vocabulary["model"]["vocab"]
    tokens["Ġthe"], tokens["Ġof"] = tokens["Ġof"], tokens["Ġthe"]
    tokenizer.write_text(json.dumps(vocabulary))
    config = home / "models" / "unknown" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "unheard_of"}))
    write_mamba(home / "models" / "recurrent")
    return {entry.name: entry for entry in Inventory(home).entries()}


def test_it_changes_nothing_but_what_is_taken(models: Mapping[str, ModelEntry]) -> None:
    drafted, report = served(models)
    plain, alone = served(models, max_draft_tokens=0, draft_model=None, draft_entry=None)
    assert (report.path, report.draft_model) == ("paged", "small")
    assert report.weights_bytes == 2 * alone.weights_bytes
    assert report.kv_bytes_per_token == 2 * alone.kv_bytes_per_token
    assert (drafted.stats().num_blocks_total, plain.stats().num_blocks_total) == (20, 40)
    assert answer(drafted) == answer(plain)
    stats = drafted.stats()
    assert stats.arena_bytes <= OPTIONS.kv_budget_bytes
    # The same weights, but for ties: hardly a guess is wrong. As slow as the target, it is asked for few all the same.
    assert stats.num_model_drafted_tokens > 0
    assert stats.num_accepted_model_drafts > 0.5 * stats.num_model_drafted_tokens
    assert plain.stats().num_model_drafted_tokens == 0


@pytest.mark.parametrize(
    ("draft", "options", "complaint"),
    [
        (
            "other",
            {},
            "other cannot be the draft_model here: its tokenizer is another one: 2 tokens differ, such as 'Ġ",
        ),
        ("recurrent", {}, "recurrent cannot be the draft_model here: it has recurrent layers"),
        ("unknown", {}, "unknown cannot be the draft_model here: mlx-lm cannot load unknown: .*unheard_of"),
        ("small", {"max_draft_tokens": 0}, "max_draft_tokens is 0, so that it would guess nothing: set max_draft_tok"),
        ("small", {"draft_entry": None}, "The draft_model 'small' was not found"),
    ],
)
def test_one_that_cannot_guess_is_refused(
    models: Mapping[str, ModelEntry], draft: str, options: Mapping[str, object], complaint: str
) -> None:
    with pytest.raises(ModelLoadFailed, match=complaint):
        served(models, **{"draft_entry": models[draft], **options})


def test_for_a_target_whose_states_cannot_be_taken_back_it_is_left_out(models: Mapping[str, ModelEntry]) -> None:
    options = msgspec.structs.replace(OPTIONS, draft_entry=models["small"])
    serving, report = load(models["recurrent"], options, say_nothing)
    assert report.draft_model == ""
    assert "cannot be taken back" in serving.stats().drafting_off


def served(models: Mapping[str, ModelEntry], **changes: object) -> tuple[Serving, ServingReport]:
    options = msgspec.structs.replace(OPTIONS, **{"draft_entry": models["small"], **changes})
    serving, report = load(models["tiny"], options, say_nothing)
    assert isinstance(serving, Serving)
    return serving, report


def answer(serving: Serving) -> str:
    """A long greedy answer."""
    events: list[Event] = []

    def take(message: FromWorker) -> None:
        assert isinstance(message, StepDone)
        events.extend(event for delta in message.deltas for event in delta.events)

    serving.publish = take
    request = GenerationRequest(
        request_id="one",
        model="tiny",
        prompt=TokenPrompt(token_ids=tuple(range(100, 140))),
        sampling=Sampling(max_tokens=120, temperature=0.0, repetition_penalty=1.0, logit_bias={0: -100.0, 2: -100.0}),
    )
    assert serving.submit(request) is None
    while serving.has_work:
        serving.step()
    return "".join(event.text for event in events if isinstance(event, PartDelta))


def write_mamba(folder: Path) -> None:
    config = {
        "model_type": "mamba",
        "vocab_size": 49152,
        "hidden_size": 32,
        "intermediate_size": 64,
        "state_size": 8,
        "num_hidden_layers": 2,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
        "max_position_embeddings": 512,
    }
    (folder / "config.json").write_text(json.dumps(config))
    mx.random.seed(7)
    Mamba(MambaArgs.from_dict(config)).save_weights(str(folder / "model.safetensors"))


def say_nothing(stage: str, fraction: float) -> None:
    """Nobody waits."""
