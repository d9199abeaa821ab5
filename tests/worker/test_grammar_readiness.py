"""A worker gets ready for grammars while nobody asks for anything, so that no answer stands still for the first one."""

from __future__ import annotations

import time
from pathlib import Path

from mlx_lm.utils import load_tokenizer

from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import Inventory
from mlx_manager.ir import GenerationRequest, Grammar, GrammarKind, Sampling, TokenPrompt
from mlx_manager.models.grammars import GrammarCompiler
from mlx_manager.worker.load import load
from mlx_manager.worker.serving import Serving
from tests.worker.test_half_precision import write_tiny_llama


def test_a_worker_gets_ready_once_it_is_quiet(starter_folder: Path, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "models" / "tiny", starter_folder)
    (entry,) = Inventory(tmp_path).entries()
    serving, _ = load(entry, LoadOptions(kv_budget_bytes=8 * 1024**2), lambda stage, fraction: None)
    assert isinstance(serving, Serving)
    started_s = time.monotonic()
    # as the worker's main loop does, until it is told that all is done
    while serving.tidy():
        time.sleep(0.05)
    assert time.monotonic() - started_s > 1.5
    assert serving.is_ready_for_grammars
    grammar = Grammar(kind=GrammarKind.REGEX, param="guided_regex", text="[a-z]{4} [0-9]{12}")
    prompt, sampling = TokenPrompt(token_ids=(1, 2, 3)), Sampling(grammar=grammar, max_tokens=6, temperature=0.0)
    assert serving.submit(GenerationRequest(request_id="r", model="m", prompt=prompt, sampling=sampling)) is None
    while serving.has_work:
        serving.step()
    stats = serving.stats()
    assert (stats.num_grammar_masks, stats.num_generated_tokens) == (6, 6)
    assert stats.grammar_compute_s > 0
    assert stats.grammar_wait_s > 0


def test_the_first_grammar_waits_for_nothing_then(starter_folder: Path) -> None:
    tokenizer = load_tokenizer(starter_folder)
    compiler = GrammarCompiler(tokenizer, 49152, frozenset(tokenizer.eos_token_ids))
    trie = compiler.prepare()
    assert compiler.prepare() is trie
    constraint = compiler.start(Grammar(kind=GrammarKind.REGEX, param="guided_regex", text="[0-9]+")).result()
    assert trie.done()
    assert constraint.num_tokens == trie.result().vocab_size
