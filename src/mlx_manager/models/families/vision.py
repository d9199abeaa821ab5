"""What is particular to families of vision models, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOKEN_FIELDS = ("image_token_id", "image_token_index", "media_placeholder_token_id")
"""Where the configs of families name the token that stands for an embedding of an image."""
VIDEO_TOKEN_FIELD = "video_token_id"
_VIDEO_FAMILIES = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"})
"""mlx-vlm shows these a video as one: frames in pairs, with positions in time. All others get its frames as images."""
_BARE_PROCESSORS = frozenset({"llava", "llava_next", "llava_bunny", "fastvlm"})
"""Their processors hand everything that they are given on to the image processor, which takes nothing of the text's."""


def exact_context(text_config: Mapping[str, Any]) -> int | None:
    """The positions up to which a family can be paged exactly; None where that is any.

    Ministral 3 scales queries by how far behind the original context they are, from there on, and mlx-vlm takes that
    from the first row of a batch for all of them.
    """
    rope = text_config.get("rope_parameters") or {}
    if not rope.get("llama_4_scaling_beta"):
        return None
    length = rope.get("original_max_position_embeddings")
    return int(length) if length else None


def has_bare_processor(model_type: str) -> bool:
    """Whether the processor of this family takes texts and images and nothing else."""
    return model_type in _BARE_PROCESSORS


def takes_videos(model_type: str) -> bool:
    """Whether a video is more to this family than images one after the other."""
    return model_type in _VIDEO_FAMILIES
