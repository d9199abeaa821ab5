"""Gemma 3 270M on its real weights: sliding windows in the paged batch, token for token as mlx-lm, beside SmolLM2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm import stream_generate

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import Lookahead
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.hub import Inventory
from mlx_manager.models.loading import LoadedModel, is_cpu_backend, load_text_model
from tests.e2e.server_process import ServerProcess, serving
from tests.engine.real_engine import GREEDY, MIN_MARGIN, Starter, drive

ANSWER = 10
WINDOW = 512
_LIST = " ".join(f"Day {day}: {day * 7 % 31} birds, {day * 5 % 13} boats." for day in range(1, 110))
TEXTS = {
    "capital": "Paris is the capital of",
    "opposite": "The opposite of hot is",
    "numbers": "1, 2, 3, 4, 5,",
    "code": "def add(a, b):\n    return",
    "german": "Die Hauptstadt von Deutschland ist",
    "japanese": "日本の首都は",
    "week": "Monday, Tuesday, Wednesday,",
    "blanks": "A list:\n\n  - one\n\n  - two\n\n  -",
}
LENGTHS = {"700 tokens": 700, "past the window": WINDOW + 40, "up to the window": WINDOW - 3, "300 tokens": 300}
"""Of one text, which begins them all: with its answer, one goes over the window's border."""
COMPLETIONS = {"Paris is the capital of": " France", "The opposite of hot is": " cold", "1, 2, 3, 4, 5,": " 6, 7, 8"}


@dataclass(frozen=True, repr=False)
class Gemma:
    """The model, and mlx-lm's greedy answers, each up to where two tokens are too close for rounding to leave alone."""

    starter: Starter
    entry: ModelEntry

    def ask(self, name: str, *, key: str = "", num_choices: int = 1) -> EngineRequest:
        return EngineRequest(
            request_id=key or name,
            prompt_token_ids=self.starter.prompts[name],
            params=(GREEDY,) * num_choices,
            max_output_tokens=len(self.starter.answers[name]),
        )

    def expected(self, *names: str, num_choices: int = 1) -> dict[str, list[tuple[int, ...]]]:
        return {name: [self.starter.answers[name]] * num_choices for name in names}


@pytest.fixture(scope="module")
def gemma(gemma_folder: Path) -> Gemma:
    entry = Inventory(gemma_folder.parents[1]).find(gemma_folder.name)
    options = LoadOptions(dtype="auto" if is_cpu_backend() else "float32")
    loaded = load_text_model(entry, options, lambda stage, fraction: None)
    prompts = {name: tuple(loaded.tokenizer.encode(text)) for name, text in TEXTS.items()}
    listed = tuple(loaded.tokenizer.encode(_LIST))
    prompts |= {name: listed[:length] for name, length in LENGTHS.items()}
    assert len(listed) >= max(LENGTHS.values())
    answers = {name: clear_answer(loaded, prompt) for name, prompt in prompts.items()}
    assert sum(len(answer) == ANSWER for answer in answers.values()) >= len(answers) - 3
    return Gemma(Starter(loaded, probe_caches(loaded.model), prompts, answers, {}), entry)


def clear_answer(loaded: LoadedModel, prompt: tuple[int, ...]) -> tuple[int, ...]:
    tokens: list[int] = []
    for response in stream_generate(loaded.model, loaded.tokenizer, list(prompt), max_tokens=ANSWER):
        best_two = mx.topk(response.logprobs, 2)
        if float(mx.max(best_two) - mx.min(best_two)) <= MIN_MARGIN:
            break
        tokens.append(int(response.token))
    assert tokens, "a tie at the first token: choose another prompt"
    return tuple(tokens)


def test_what_was_imported(gemma: Gemma) -> None:
    assert (gemma.entry.architecture, gemma.entry.quantization) == ("gemma3_text", "mixed 4/5/8-bit")
    assert gemma.entry.max_context == 32768
    config = json.loads((Path(gemma.entry.path) / "config.json").read_text())
    assert (config["sliding_window"], config["sliding_window_pattern"], config["num_hidden_layers"]) == (512, 6, 18)
    windows = gemma.starter.caches.layout.windows
    assert [window for window in windows if window is not None] == [WINDOW] * 15
    assert gemma.starter.loaded.style.family.name == "Gemma 1 to 3, 3n"
    assert gemma.starter.loaded.style.warning == ""


def test_alone_then_again_from_the_prefix_cache(gemma: Gemma) -> None:
    names = tuple(gemma.starter.prompts)
    alone = drive(gemma.starter)
    for name in names:
        alone.run(gemma.ask(name))
    assert alone.tokens() == gemma.expected(*names)
    again = alone.run_staggered([gemma.ask(name) for name in names], every=1)
    assert again == gemma.expected(*names)
    for name in names:
        assert alone.cached[name] >= (len(gemma.starter.prompts[name]) - 1) // 32 * 32


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_in_batches_with_joins_and_leaves(gemma: Gemma, lookahead: Lookahead) -> None:
    names = tuple(gemma.starter.prompts)
    batch = drive(gemma.starter, lookahead=lookahead, max_batch_size=5, max_step_tokens=128)
    assert batch.run_staggered([gemma.ask(name) for name in names], every=2) == gemma.expected(*names)


@pytest.mark.parametrize("attention", list(DecodeAttention))
def test_rows_of_very_different_lengths(gemma: Gemma, attention: DecodeAttention) -> None:
    names = ("700 tokens", "capital", "past the window", "japanese", "up to the window")
    ragged = drive(gemma.starter, attention=attention)
    assert ragged.run(*(gemma.ask(name) for name in names)) == gemma.expected(*names)


def test_forked_and_preempted(gemma: Gemma) -> None:
    forked = drive(gemma.starter)
    names = ("capital", "past the window")
    tokens = forked.run(*(gemma.ask(name, num_choices=2) for name in names))
    assert tokens == gemma.expected(*names, num_choices=2)
    crowded = drive(gemma.starter, num_blocks=20)
    others = ("300 tokens", "up to the window", "week")
    assert crowded.run(*(gemma.ask(name) for name in others)) == gemma.expected(*others)


@pytest.fixture(scope="module")
def server(
    starter_folder: Path, gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    (home / "models" / gemma_folder.name).symlink_to(gemma_folder, target_is_directory=True)
    with serving(starter_folder, home) as running:
        yield running


def test_it_answers_beside_the_starter_model(server: ServerProcess, gemma_folder: Path) -> None:
    """Both models hot, both asked at once; Gemma's template takes instructions and turns in a row."""

    def complete(prompt: str) -> str:
        answer = server.sdk.completions.create(model=gemma_folder.name, prompt=prompt, max_tokens=8, temperature=0)
        return answer.choices[0].text

    def ask_starter(_: str) -> str:
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        answer = server.sdk.chat.completions.create(
            model=server.model,
            messages=messages,  # type: ignore[arg-type]
            temperature=0,
        )
        return str(answer.choices[0].message.content)

    with ThreadPoolExecutor(max_workers=8) as clients:
        starters = [clients.submit(ask_starter, prompt) for prompt in COMPLETIONS]
        completed = dict(zip(COMPLETIONS, clients.map(complete, COMPLETIONS), strict=True))
        said = [each.result() for each in starters]
    for prompt, continuation in COMPLETIONS.items():
        assert completed[prompt].startswith(continuation), completed
    assert said == ["The capital of France is Paris."] * len(COMPLETIONS)
    with server.http() as client:
        models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    serving_report = models[gemma_folder.name]["serving"]
    assert (serving_report["path"], serving_report["family"]) == ("paged", "Gemma 1 to 3, 3n")
    chat = server.sdk.chat.completions.create(
        model=gemma_folder.name,
        messages=[{"role": role, "content": "Hello"} for role in ("system", "user", "user")],  # type: ignore[misc]
        max_tokens=4,
        temperature=0,
    )
    assert chat.usage is not None
    assert chat.usage.completion_tokens > 0
