"""Small random vision models as folders: mlx-vlm's own classes, a tokenizer of single bytes, real processor files.

A configuration says only what a family needs; sizes are such that every kind of layer occurs and an image takes between
a few and a few dozen tokens, over several blocks of the cache.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_vlm.utils
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

LIBRARY_WARNINGS = [
    # published configs say it in the older way
    pytest.mark.filterwarnings("ignore:`rope_scaling` is deprecated:FutureWarning"),
    # of a part that hears, which mlx-vlm makes for models without one too
    pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values:UserWarning"),
]
_SEED = 11
_SPREAD = 1.2
_MEAN = [0.5, 0.5, 0.5]

END, PAD, START = "<|end|>", "<|pad|>", "<|begin|>"
_COMMON = (PAD, END, START)
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}

_TEMPLATE = (
    "{%% for m in messages %%}<|begin|>{{ m.role }}:{%% if m.content is string %%}{{ m.content }}{%% else %%}"
    "{%% for c in m.content %%}{%% if c.type == 'image' %%}%s{%% else %%}{{ c.text }}{%% endif %%}{%% endfor %%}"
    "{%% endif %%}<|end|>{%% endfor %%}{%% if add_generation_prompt %%}<|begin|>assistant:{%% endif %%}"
)
_LISTS_ONLY = (
    "{%% for m in messages %%}<|begin|>{{ m.role }}:{%% for c in m.content %%}{%% if c.type == 'image' %%}%s"
    "{%% elif c.type == 'text' %%}{{ c.text }}{%% endif %%}{%% endfor %%}<|end|>{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|begin|>assistant:{%% endif %%}"
)


@dataclass(frozen=True)
class Family:
    """What makes one family. `config` takes the id of every special token."""

    specials: tuple[str, ...]
    config: Callable[[Mapping[str, int]], dict[str, Any]]
    placeholder: str
    """What the chat template writes for an image."""
    processor_files: Mapping[str, Any]
    text: Mapping[str, Any] = field(default_factory=dict)
    template: str = _TEMPLATE
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    embedding_spread: float = 0.3
    """Smaller where embeddings are scaled up and tied to the head: the model would only repeat the last token."""


def _clip(size: int) -> dict[str, Any]:
    return {
        "do_resize": True,
        "size": {"height": size, "width": size},
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _MEAN,
        "image_std": _MEAN,
        "do_convert_rgb": True,
        "resample": 3,
    }


def _llava(ids: Mapping[str, int]) -> dict[str, Any]:
    vision = {
        "model_type": "clip_vision_model",
        "num_hidden_layers": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "image_size": 42,
        "patch_size": 7,
    }
    return {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "image_token_index": ids["<image>"],
        "vision_feature_layer": -2,
        "text_config": {"model_type": "llama"},
        "vision_config": vision,
    }


def _smolvlm(model_type: str) -> Callable[[Mapping[str, int]], dict[str, Any]]:
    def config(ids: Mapping[str, int]) -> dict[str, Any]:
        vision = {
            "model_type": "siglip_vision_model" if model_type == "smolvlm" else model_type,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "patch_size": 7,
            "num_hidden_layers": 2,
            "intermediate_size": 48,
            "image_size": 42,
        }
        name = "SmolVLM" if model_type == "smolvlm" else "Idefics3"
        return {
            "model_type": model_type,
            "architectures": [f"{name}ForConditionalGeneration"],
            "image_token_id": ids["<image>"],
            "scale_factor": 2,
            "text_config": {"model_type": "llama"},
            "vision_config": vision,
        }

    return config


_IDEFICS_FILES = {
    "preprocessor_config.json": {
        "image_processor_type": "Idefics3ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": 84},
        "resample": 1,
        "do_image_splitting": True,
        "max_image_size": {"longest_edge": 42},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _MEAN,
        "image_std": _MEAN,
        "do_pad": True,
    },
    "processor_config.json": {"image_seq_len": 9},
}
_IDEFICS_SPECIALS = (
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
)


def _qwen(model_type: str) -> Callable[[Mapping[str, int]], dict[str, Any]]:
    def config(ids: Mapping[str, int]) -> dict[str, Any]:
        vision: dict[str, Any] = {
            "model_type": model_type,
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 64,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "in_channels": 3,
        }
        if model_type == "qwen3_vl":
            vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
        else:
            vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        if model_type == "qwen2_vl":
            vision |= {"embed_dim": 32, "hidden_size": 64}
        ends = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
        tokens = {f"{name}_token_id": ids[token] for name, token in ends.items()}
        rope = {"type": "mrope", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
        names = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
        whole = {
            "model_type": model_type,
            "architectures": [f"{names[model_type]}ForConditionalGeneration"],
            **tokens,
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
            "rope_scaling": rope,
            "vision_config": vision,
        }
        if model_type == "qwen3_vl":
            return whole | {"text_config": {"model_type": "qwen3_vl_text", "rope_scaling": rope}}
        # these have the text model's values at the top, as their checkpoints do
        return whole | _TEXT | {"vocab_size": len(ids) + 256}

    return config


def _qwen35(ids: Mapping[str, int]) -> dict[str, Any]:
    whole = _qwen("qwen3_vl")(ids)
    text = {
        "model_type": "qwen3_5_text",
        "num_hidden_layers": 4,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "full_attention_interval": 4,
        "rope_parameters": {
            "type": "default",
            "mrope_section": [2, 1, 1],
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    }
    vision = whole["vision_config"] | {"model_type": "qwen3_5", "deepstack_visual_indexes": []}
    names = {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"]}
    return whole | names | {"text_config": text, "vision_config": vision}


_QWEN_SPECIALS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|placeholder|>")
_QWEN_PLACEHOLDER = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_TEMPLATE = _TEMPLATE.replace(
    "{%% else %%}{{ c.text }}",
    "{%% elif c.type == 'video' %%}<|vision_start|><|video_pad|><|vision_end|>{%% else %%}{{ c.text }}",
)


def _qwen_files(**more: Any) -> dict[str, Any]:
    sizes = {
        "min_pixels": 56 * 56,
        "max_pixels": 140 * 140,
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }
    return {"preprocessor_config.json": {**sizes, "image_mean": _MEAN, "image_std": _MEAN, **more}}


def _gemma3(ids: Mapping[str, int]) -> dict[str, Any]:
    text = {
        "model_type": "gemma3_text",
        "sliding_window": 12,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 16,
        "rope_local_base_freq": 10000.0,
        "rope_global_base_freq": 1000000.0,
        "mm_tokens_per_image": 9,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "patch_size": 7,
        "image_size": 42,
    }
    return {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "image_token_index": ids["<image_soft_token>"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "mm_tokens_per_image": 9,
        "hidden_size": 64,
        "pad_token_id": ids[PAD],
        "text_config": text,
        "vision_config": vision,
    }


def _gemma4(**changes: Any) -> Callable[[Mapping[str, int]], dict[str, Any]]:
    def config(ids: Mapping[str, int]) -> dict[str, Any]:
        text = {
            "model_type": "gemma4_text",
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "num_kv_shared_layers": 2,
            "sliding_window": 12,
            "global_head_dim": 32,
            "vocab_size_per_layer_input": len(ids) + 256,
            "hidden_size_per_layer_input": 16,
            "tie_word_embeddings": True,
            **changes,
        }
        vision = {
            "model_type": "gemma4_vision",
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "global_head_dim": 16,
            "patch_size": 14,
            "default_output_length": 16,
            "position_embedding_size": 64,
        }
        tokens = {"image_token_id": "<|image|>", "boi_token_id": "<|image>", "eoi_token_id": "<image|>"}
        return {
            "model_type": "gemma4",
            "architectures": ["Gemma4ForConditionalGeneration"],
            **{name: ids[token] for name, token in tokens.items()},
            "audio_token_id": ids["<|audio|>"],
            "pad_token_id": ids[PAD],
            "hidden_size": 64,
            "vision_soft_tokens_per_image": 16,
            "tie_word_embeddings": True,
            "text_config": text,
            "vision_config": vision,
        }

    return config


_GEMMA4: dict[str, Any] = {
    "specials": ("<|image|>", "<|image>", "<image|>", "<|audio|>", "<|audio>", "<audio|>", "<|video|>"),
    "placeholder": "<|image|>",
    "processor_files": {
        "processor_config.json": {
            "image_processor": {"patch_size": 14, "max_soft_tokens": 16, "pooling_kernel_size": 3},
            "image_seq_length": 16,
        }
    },
    "tokenizer_config": {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    },
    "embedding_spread": 0.04,
}


def _pixtral(model_type: str) -> Callable[[Mapping[str, int]], dict[str, Any]]:
    def config(ids: Mapping[str, int]) -> dict[str, Any]:
        vision = {
            "model_type": "pixtral",
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "head_dim": 16,
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "image_size": 84,
            "patch_size": 14,
            "rope_theta": 10000.0,
        }
        name = "Llava" if model_type == "pixtral" else "Mistral3"
        return {
            "model_type": model_type,
            "architectures": [f"{name}ForConditionalGeneration"],
            "image_token_index": ids["[IMG]"],
            "vision_feature_layer": -1,
            "spatial_merge_size": 2,
            "text_config": {"model_type": "mistral"},
            "vision_config": vision,
        }

    return config


_PIXTRAL_SPECIALS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")


def _pixtral_files(merge_size: int) -> dict[str, Any]:
    return {
        "preprocessor_config.json": {
            "image_processor_type": "PixtralImageProcessor",
            "do_resize": True,
            "size": {"longest_edge": 84},
            "patch_size": 14,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": _MEAN,
            "image_std": _MEAN,
            "do_convert_rgb": True,
            "resample": 3,
        },
        "processor_config.json": {"patch_size": 14, "spatial_merge_size": merge_size, "image_token": "[IMG]"},
    }


def _ministral3(ids: Mapping[str, int]) -> dict[str, Any]:
    text = {
        "model_type": "ministral3",
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 12,
        "rope_parameters": {
            "rope_type": "default",
            "type": "default",
            "rope_theta": 10000.0,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 1024,
        },
    }
    return _pixtral("mistral3")(ids) | {"text_config": text}


FAMILIES: dict[str, Family] = {
    "llava": Family(
        specials=("<image>",),
        config=_llava,
        placeholder="<image>",
        processor_files={
            "preprocessor_config.json": {"image_processor_type": "CLIPImageProcessor", **_clip(42)},
            "processor_config.json": {
                "patch_size": 7,
                "vision_feature_select_strategy": "default",
                "num_additional_image_tokens": 1,
            },
        },
    ),
    "smolvlm": Family(
        specials=_IDEFICS_SPECIALS,
        config=_smolvlm("smolvlm"),
        placeholder="<image>",
        processor_files=_IDEFICS_FILES,
        template=_LISTS_ONLY,
    ),
    "idefics3": Family(
        specials=_IDEFICS_SPECIALS,
        config=_smolvlm("idefics3"),
        placeholder="<image>",
        processor_files=_IDEFICS_FILES,
        template=_LISTS_ONLY,
    ),
    "qwen2_vl": Family(
        specials=_QWEN_SPECIALS,
        config=_qwen("qwen2_vl"),
        placeholder=_QWEN_PLACEHOLDER,
        template=_QWEN_TEMPLATE,
        processor_files=_qwen_files(),
    ),
    "qwen2_5_vl": Family(
        specials=_QWEN_SPECIALS,
        config=_qwen("qwen2_5_vl"),
        placeholder=_QWEN_PLACEHOLDER,
        template=_QWEN_TEMPLATE,
        processor_files=_qwen_files(),
    ),
    "qwen3_vl": Family(
        specials=_QWEN_SPECIALS,
        config=_qwen("qwen3_vl"),
        placeholder=_QWEN_PLACEHOLDER,
        template=_QWEN_TEMPLATE,
        processor_files=_qwen_files(),
    ),
    "qwen3_5": Family(
        specials=_QWEN_SPECIALS,
        config=_qwen35,
        placeholder=_QWEN_PLACEHOLDER,
        template=_QWEN_TEMPLATE,
        processor_files=_qwen_files(),
    ),
    "gemma3": Family(
        specials=("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        config=_gemma3,
        placeholder="<start_of_image>",
        processor_files={
            "preprocessor_config.json": {"image_processor_type": "Gemma3ImageProcessor", **_clip(42)},
            "processor_config.json": {"image_seq_length": 9},
        },
        tokenizer_config={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        embedding_spread=0.04,
    ),
    "gemma4": Family(config=_gemma4(), **_GEMMA4),
    "pixtral": Family(
        specials=_PIXTRAL_SPECIALS,
        config=_pixtral("pixtral"),
        placeholder="[IMG]",
        processor_files=_pixtral_files(1),
    ),
    "mistral3": Family(
        specials=_PIXTRAL_SPECIALS,
        config=_pixtral("mistral3"),
        placeholder="[IMG]",
        processor_files=_pixtral_files(2),
    ),
    "mistral3-ministral3": Family(
        specials=_PIXTRAL_SPECIALS,
        config=_ministral3,
        placeholder="[IMG]",
        processor_files=_pixtral_files(2),
    ),
}
"""By model type, with the type of the text model behind it where one has several."""

UNPAGED: dict[str, Family] = {
    # the tokens of an image see each other in both directions
    "gemma4-bidirectional": Family(config=_gemma4(use_bidirectional_attention="vision"), **_GEMMA4),
}
"""The library has these for itself."""


def write_model(folder: Path, model_type: str) -> Path:
    """A model folder that mlx-vlm loads, with weights that are always the same."""
    family = (FAMILIES | UNPAGED)[model_type]
    folder.mkdir(parents=True)
    ids = _write_tokenizer(folder, family)
    config = family.config(ids)
    vocabulary_size = len(ids) + 256
    config["eos_token_id"] = ids[END]
    config["torch_dtype"] = "float32"
    if "text_config" in config:
        config["text_config"] = {**_TEXT, "vocab_size": vocabulary_size, **config["text_config"], **family.text}
    config.setdefault("vocab_size", vocabulary_size)
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in family.processor_files.items():
        (folder / name).write_text(json.dumps(content))
    mx.save_safetensors(str(folder / "model.safetensors"), random_weights(config, family.embedding_spread))
    return folder


def random_weights(config: Mapping[str, Any], embedding_spread: float = 0.3) -> dict[str, mx.array]:
    """Weights of the library's own class, as it names them once they are loaded."""
    mx.random.seed(_SEED)
    own = json.loads(json.dumps(config))
    module, _ = mlx_vlm.utils.get_model_and_args(config=own)
    model_config = module.ModelConfig.from_dict(own)
    model_config = mlx_vlm.utils.update_module_configs(model_config, module, own, ["text", "vision"])
    model: nn.Module = module.Model(model_config)
    embeddings = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)}
    parameters: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    drawn = [(name, _drawn(value, embedding_spread if name in embeddings else None)) for name, value in parameters]
    model.update(tree_unflatten(drawn))
    mx.eval(model.parameters())
    return dict(drawn)


def _drawn(value: mx.array, embedding_spread: float | None) -> mx.array:
    noise = mx.random.normal(value.shape)
    if value.ndim < 2:
        return value.astype(mx.float32) + noise * 0.2
    if embedding_spread is not None:
        return noise * embedding_spread
    fan_in = math.prod(value.shape[1:])
    return noise * (_SPREAD / math.sqrt(fan_in))


def _write_tokenizer(folder: Path, family: Family) -> dict[str, int]:
    """Every byte is a token, and every special token is one; the ids of the special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = (*_COMMON, *family.specials)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "bos_token": START,
        "model_max_length": 2048,
        "chat_template": family.template % family.placeholder,
        "extra_special_tokens": {},
        **family.tokenizer_config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return {token: int(vocabulary[token]) for token in specials}
