"""What is particular to families of vision models, as data."""

from __future__ import annotations

TOKEN_FIELDS = ("image_token_id", "image_token_index", "media_placeholder_token_id")
"""Where the configs of families name the token that stands for an embedding of an image."""
_BARE_PROCESSORS = frozenset({"llava", "llava_next", "llava_bunny", "fastvlm"})
"""Their processors hand everything that they are given on to the image processor, which takes nothing of the text's."""


def has_bare_processor(model_type: str) -> bool:
    """Whether the processor of this family takes texts and images and nothing else."""
    return model_type in _BARE_PROCESSORS
