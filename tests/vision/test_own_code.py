"""Vision models bring processors, whose libraries run code from the model's folder where nobody forbids it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.hub.model_folder import read_entry
from mlx_manager.models.vision import load_vision_model
from tests.vision.zoo import LIBRARY_WARNINGS, write_model

pytestmark = LIBRARY_WARNINGS

HOSTILE: dict[str, tuple[str, dict[str, Any]]] = {
    "tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "own.Own"]}}),
    "unknown tokenizer": (
        "tokenizer_config.json",
        {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
    ),
    "processor": ("processor_config.json", {"processor_class": "Own", "auto_map": {"AutoProcessor": "own.Own"}}),
    "image processor": (
        "preprocessor_config.json",
        {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own", "AutoProcessor": "own.Own"}},
    ),
    "model": ("config.json", {"model_file": "own.py"}),
    "config": ("config.json", {"auto_map": {"AutoConfig": "own.Own", "AutoProcessor": "own.Own"}}),
}


@pytest.mark.parametrize("model_type", ["qwen3_vl", "gemma4", "smolvlm"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_vision_model_s_own_code_is_not_run(tmp_path: Path, model_type: str, name: str) -> None:
    folder = write_model(tmp_path / model_type, model_type)
    harm = tmp_path / "harm"
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(harm)!r}).touch()\nclass Own: pass\n")
    file, values = HOSTILE[name]
    known = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(known | values))
    with suppress(ModelLoadFailed):  # refused, or served by the library's own class: either will do
        load_vision_model(read_entry(folder, model_type), LoadOptions(), lambda stage, fraction: None)
    assert not harm.exists()


def test_the_refusal_says_why(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llava", "llava")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_file": "own.py"}))
    with pytest.raises(ModelLoadFailed, match=r"Python code of its own \(own.py\), which is never run here"):
        load_vision_model(read_entry(folder, "llava"), LoadOptions(), lambda stage, fraction: None)
