"""Model folders that are damaged at random: each fails with a reason or answers, and nothing else suffers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.server_process import PATIENCE_S, serving
from tests.e2e.tiny_model import make_tiny_model

pytestmark = pytest.mark.faults


def _flip(folder: Path, chance: random.Random) -> None:
    """Change bytes of the header, where the places and shapes of the tensors are."""
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    for _ in range(8):
        content[chance.randrange(0, 1200)] = chance.randrange(256)
    file.write_bytes(content)


def _cut(folder: Path, chance: random.Random) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(len(content))])


def _other_shapes(folder: Path, chance: random.Random) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        if chance.random() < 0.5:
            config[name] = chance.choice((0, 1, 3, 10**9, -1))
    file.write_text(json.dumps(config))


def _no_numbers(folder: Path, chance: random.Random) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config[chance.choice(sorted(config))] = chance.choice((None, "x" * 1000, [], {"a": 1}, 1e308, True))
    file.write_text(json.dumps(config))


def _cut_tokenizer(folder: Path, chance: random.Random) -> None:
    file = folder / "tokenizer.json"
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(len(content))])


def _empty_tokenizer(folder: Path, chance: random.Random) -> None:
    (folder / "tokenizer.json").write_text("{}")


def _huge_template(folder: Path, chance: random.Random) -> None:
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config["chat_template"] = chance.choice(
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% for a in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ ''.__class__.__mro__ }}",
        )
    )
    file.write_text(json.dumps(config))


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    _flip,
    _cut,
    _other_shapes,
    _no_numbers,
    _cut_tokenizer,
    _empty_tokenizer,
    _huge_template,
)
NUM_EACH = 3


def test_damaged_folders_fail_with_a_reason_or_answer(tiny_folder: Path, starter_folder: Path, tmp_path: Path) -> None:
    chance = random.Random(3)
    names = []
    for damage in DAMAGES:
        for number in range(NUM_EACH):
            name = f"{damage.__name__.strip('_').replace('_', '-')}-{number}"
            make_tiny_model(tmp_path / "models" / name, starter_folder, seed=number)
            damage(tmp_path / "models" / name, chance)
            names.append(name)
    flags = ("--kv-budget", "32MiB", "--template-timeout", "2", "--load-timeout", "60")
    with serving(tiny_folder, tmp_path, *flags) as server:
        worker = server.model_health()["worker_pid"]
        seen = {}
        for name in names:
            body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
            code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
            seen[name] = (answer.status_code, code)
            if code:
                assert answer.json()["error"]["message"]
            httpx.post(f"{server.url}/admin/models/{name}/unload", timeout=PATIENCE_S)
        allowed = {
            (200, ""),
            (503, "model_load_failed"),
            (503, "insufficient_memory"),
            (400, "invalid_request"),
            (404, "model_not_found"),
        }
        assert {name: how for name, how in seen.items() if how not in allowed} == {}
        assert len({how for how in seen.values() if how[0] != 200}) >= 1
        assert server.model_health()["worker_pid"] == worker
        assert server.sdk.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "Hi"}], max_tokens=3
        ).choices
