"""Writes the model that `vision` measures: SmolVLM's classes with random weights, under the starter's tokenizer.

`python -m benchmarks.vision_model FOLDER STARTER_FOLDER`. The language model has the widths of SmolLM2-135M and 12 of
its 30 layers, the tower 6 layers of 384; an image of 512 by 512 pixels is cut into 4 tiles and seen whole beside them.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_vlm.utils
from mlx import nn
from mlx.utils import tree_flatten
from tokenizers import AddedToken, Tokenizer

_IMAGE, _END = "<image>", "<end_of_utterance>"
_TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
_SPECIALS = (_IMAGE, "<fake_token_around_image>", "<global-img>", _END, *_TILES)
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:{% for c in m.content %}{% if c.type == 'image' %}<image>"
    "{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_HALF = [0.5, 0.5, 0.5]
_PREPROCESSOR = {
    "image_processor_type": "Idefics3ImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"longest_edge": 512},
    "resample": 1,
    "do_image_splitting": True,
    "max_image_size": {"longest_edge": 256},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": _HALF,
    "image_std": _HALF,
    "do_pad": True,
}
_TEXT = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "patch_size": 16,
    "image_size": 256,
}


def main() -> None:
    """Write the folder."""
    folder, starter = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.from_file(str(starter / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab(with_added_tokens=True)
    vocabulary_size = max(ids.values()) + 1
    config: dict[str, Any] = {
        "model_type": "smolvlm",
        "architectures": ["SmolVLMForConditionalGeneration"],
        "image_token_id": ids[_IMAGE],
        "eos_token_id": ids[_END],
        "scale_factor": 4,
        "vocab_size": vocabulary_size,
        "torch_dtype": "float32",
        "text_config": {**_TEXT, "vocab_size": vocabulary_size},
        "vision_config": _VISION,
    }
    files = {
        "config.json": config,
        "preprocessor_config.json": _PREPROCESSOR,
        "processor_config.json": {"image_seq_len": 16},
        "chat_template.json": {"chat_template": _TEMPLATE},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": _END,
            "pad_token": _END,
            "chat_template": _TEMPLATE,
            "model_max_length": 8192,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    mx.save_safetensors(str(folder / "model.safetensors"), _weights(config))


def _weights(config: dict[str, Any]) -> dict[str, mx.array]:
    mx.random.seed(0)
    module, _ = mlx_vlm.utils.get_model_and_args(config=config)
    model_config = module.ModelConfig.from_dict(config)
    model_config = mlx_vlm.utils.update_module_configs(model_config, module, config, ["text", "vision"])
    model: nn.Module = module.Model(model_config)
    flat: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    return {
        name: value if value.ndim < 2 else mx.random.normal(value.shape) / math.sqrt(math.prod(value.shape[1:]))
        for name, value in flat
    }


if __name__ == "__main__":
    main()
