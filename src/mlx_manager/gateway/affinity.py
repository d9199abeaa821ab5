"""Brings a conversation back to the target that has its prefix cached: rendezvous hashing over how it begins.

Each target is weighed by a digest of the conversation's beginning and its own name, and the heaviest comes first. So
all turns of a conversation lead to one target, conversations spread evenly, and a target that comes or goes moves only
its own (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

from mlx_manager.ir import ChatPrompt, ImageContent, Prompt, Role, TextPrompt, VideoContent

_MAX_CHARACTERS = 256
_MAX_TOKENS = 64
_Target = TypeVar("_Target")


def beginning_of(prompt: Prompt) -> bytes:
    """A digest of what all turns of a conversation share: its tools, and its messages up to the user's first.

    Of a raw prompt its first characters or tokens, which a longer version of it begins with too.
    """
    digest = hashlib.blake2b(digest_size=16)
    for piece in _pieces(prompt):
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.digest()


def by_affinity(targets: Sequence[_Target], labels: Sequence[str], beginning: bytes) -> list[_Target]:
    """`targets`, whose names are `labels`, in the order in which they are to be asked."""
    weights = [hashlib.blake2b(beginning + label.encode(), digest_size=8).digest() for label in labels]
    order = sorted(range(len(targets)), key=lambda index: weights[index], reverse=True)
    return [targets[index] for index in order]


def _pieces(prompt: Prompt) -> Iterable[bytes]:
    if isinstance(prompt, ChatPrompt):
        yield from (tool.name.encode() for tool in prompt.tools)
        for message in prompt.messages:
            yield message.role.value.encode()
            yield message.text.encode("utf-8", "surrogatepass")
            yield from (_digest(visual) for visual in message.visuals)
            if message.role is Role.USER:
                return
    elif isinstance(prompt, TextPrompt):
        yield prompt.text[:_MAX_CHARACTERS].encode("utf-8", "surrogatepass")
    else:
        yield str(prompt.token_ids[:_MAX_TOKENS]).encode()


def _digest(visual: ImageContent | VideoContent) -> bytes:
    frames = visual.frames if isinstance(visual, VideoContent) else ()
    digest = hashlib.blake2b(visual.data or visual.url.encode())
    for frame in frames:
        digest.update(_digest(frame))
    return digest.digest()
