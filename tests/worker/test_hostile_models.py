"""Models that are damaged or mean harm: their code never runs, and what is wrong is told."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import InvalidRequest, ModelLoadFailed
from mlx_manager.hub import Inventory
from mlx_manager.ir import ChatPrompt, GenerationRequest, Message, Role, TextContent
from mlx_manager.worker.load import load
from mlx_manager.worker.serving import Serving
from tests.worker.test_half_precision import write_tiny_llama

HARM = "from pathlib import Path\nPath(__file__).with_name('harm').touch()\n"


@pytest.fixture
def tiny(starter_folder: Path, tmp_path: Path) -> ModelEntry:
    write_tiny_llama(tmp_path / "models" / "tiny", starter_folder)
    (entry,) = Inventory(tmp_path).entries()
    return entry


def change(entry: ModelEntry, name: str, values: dict[str, Any]) -> None:
    """Put `values` into one of the model's JSON files."""
    file = Path(entry.path) / name
    if file.is_symlink():
        content = file.read_text()
        file.unlink()
        file.write_text(content)
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def try_load(entry: ModelEntry) -> Serving:
    serving, _ = load(entry, LoadOptions(), lambda stage, fraction: None)
    assert isinstance(serving, Serving)
    return serving


def test_a_model_s_own_code_is_not_run(tiny: ModelEntry) -> None:
    (Path(tiny.path) / "own_model.py").write_text(HARM)
    change(tiny, "config.json", {"model_file": "own_model.py"})
    with pytest.raises(ModelLoadFailed, match="own_model"):
        try_load(tiny)
    assert not (Path(tiny.path) / "harm").exists()


def test_a_tokenizer_s_own_code_is_not_run(tiny: ModelEntry) -> None:
    (Path(tiny.path) / "own_tokenizer.py").write_text(HARM)
    change(tiny, "tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "own_tokenizer.Own"]}})
    with suppress(ModelLoadFailed):  # refused, or served by the library's own class: either will do
        try_load(tiny)
    assert not (Path(tiny.path) / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 64, b"\x08\x00\x00\x00\x00\x00\x00\x00{no json"])
def test_damaged_weights_fail_the_load_with_a_reason(tiny: ModelEntry, content: bytes) -> None:
    for file in Path(tiny.path).glob("*.safetensors"):
        file.unlink()
        file.write_bytes(content)
    with pytest.raises(ModelLoadFailed, match="tiny"):
        try_load(tiny)


def test_weights_that_break_off_fail_the_load(tiny: ModelEntry) -> None:
    for file in Path(tiny.path).glob("*.safetensors"):
        whole = file.read_bytes()
        file.unlink()
        file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelLoadFailed, match="tiny"):
        try_load(tiny)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch harm') }}",
        "{% for i in range(999999999) %}{{ i }}{% endfor %}",
        "{{ messages.append(1) }}",
        "{% macro on() %}{{ on() }}{% endmacro %}{{ on() }}",
        "{{ 1 / 0 }}",
        "{{ 'a' * 10 ** 17 }}",
    ],
)
def test_a_chat_template_cannot_leave_its_sandbox(tiny: ModelEntry, template: str) -> None:
    set_template(tiny, template)
    failure = try_load(tiny).submit(saying("hi"))
    assert failure is not None
    assert failure.error.code == InvalidRequest.code


def test_the_tokenizer_of_another_model_fails_the_load(tiny: ModelEntry) -> None:
    weights = Path(tiny.path) / "model.safetensors"
    tensors = load_file(weights)
    rows = ("model.embed_tokens.weight", "lm_head.weight")
    save_file({name: array[:300] if name in rows else array for name, array in tensors.items()}, weights)
    change(tiny, "config.json", {"vocab_size": 300})
    with pytest.raises(ModelLoadFailed, match="tokenizer of another model: it makes token"):
        try_load(tiny)


ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def test_a_chat_template_that_computes_for_ever_fails_the_load(tiny: ModelEntry) -> None:
    set_template(tiny, ENDLESS)
    with pytest.raises(InvalidRequest, match="chat template computes for more than"):
        load(tiny, LoadOptions(template_timeout_s=0.2), lambda stage, fraction: None)


def test_a_chat_template_that_computes_for_ever_for_some_fails_their_requests(tiny: ModelEntry) -> None:
    set_template(
        tiny, "{% for m in messages %}{{ m.content }}{% if m.content == 'loop' %}" + ENDLESS + "{% endif %}{% endfor %}"
    )
    serving, _ = load(tiny, LoadOptions(template_timeout_s=0.2), lambda stage, fraction: None)
    assert isinstance(serving, Serving)
    failure = serving.submit(saying("loop"))
    assert failure is not None
    assert (failure.error.code, failure.error.param) == (InvalidRequest.code, "messages")
    assert "setting template_timeout" in failure.error.message
    assert serving.submit(saying("hi")) is None


def set_template(entry: ModelEntry, template: str) -> None:
    for file in Path(entry.path).glob("chat_template*"):
        file.unlink()
    change(entry, "tokenizer_config.json", {"chat_template": template})


def saying(text: str) -> GenerationRequest:
    message = Message(role=Role.USER, content=(TextContent(text=text),))
    return GenerationRequest(request_id=text, model="tiny", prompt=ChatPrompt(messages=(message,)))
