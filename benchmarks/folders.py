"""The model folders that are measured, made from the starter model in a scratch folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.servers import PROGRAMS
from mlx_manager.hub.starter import find_installed_gguf

_TINY_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}

_WRITE_TINY = """
import json, sys
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
folder = sys.argv[1]
mx.random.seed(0)
model = Model(ModelArgs.from_dict(json.load(open(folder + "/config.json"))))
mx.save_safetensors(folder + "/model.safetensors", dict(tree_flatten(model.parameters())), metadata={"format": "mlx"})
"""
"""Runs in a process of its own: the comparison itself loads no MLX."""


def import_starter(folder: Path, gguf: Path | None = None) -> Path:
    """The starter model as `mlx-manager import` makes it, in `folder`/home. Ends the program when there is no GGUF."""
    gguf = gguf or find_installed_gguf()
    if gguf is None:
        sys.exit("The starter model is not installed: `make install` fetches it, or name it with --gguf.")
    home = folder / "home"
    _run("mlx-manager", ["import", str(gguf), "--name", "starter"], {"MLX_MANAGER_HOME": str(home)})
    return home / "models" / "starter"


def make_float32_folder(quantized: Path, folder: Path) -> Path:
    """The same model in float32, which every server loads as it is. Raises `CalledProcessError`."""
    dense = folder / "starter-float32"
    convert = ["-m", "mlx_lm", "convert", "--hf-path", str(quantized), "--mlx-path", str(dense)]
    _run("python", [*convert, "--dequantize", "--dtype", "float32"], {"HF_HUB_OFFLINE": "1"})
    return dense


def make_tiny_folder(starter: Path, folder: Path) -> Path:
    """Two random layers under the starter's tokenizer: so quick that what is around the model shows."""
    tiny = folder / "tiny"
    shutil.copytree(starter, tiny, ignore=shutil.ignore_patterns("*.safetensors*"))
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    for name in ("quantization", "quantization_config"):
        config.pop(name, None)
    (tiny / "config.json").write_text(json.dumps(config | _TINY_SHAPE), encoding="utf-8")
    _run("python", ["-c", _WRITE_TINY, str(tiny)], {})
    return tiny


def _run(program: str, arguments: list[str], environment: dict[str, str]) -> None:
    command = [str(PROGRAMS / program), *arguments]
    subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)
