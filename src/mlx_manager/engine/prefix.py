"""The prefix index: finds physical blocks by the tokens they hold and all tokens before them. No tensors here.

The key of a block is a digest of its parent's key, its own tokens and any extra keys, so that equal keys mean equal
prefixes (vLLM's automatic prefix caching works the same way). Where the embeddings of an image stand in a prompt, its
`content_id`s stand for the tokens. A block that is not full is entered under its tokens so far; it is never shared,
only copied from, because its owner may go on writing behind them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence as AbstractSequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from mlx_manager.engine.blocks import BLOCK_SIZE

ROOT_KEY = b""
"""The parent key of every first block."""

_MIN_PARTIAL_TOKENS = 4
"""Copying a block costs about as much as computing this few tokens; below it a partial hit is not worth the copy."""


def block_key(parent: bytes, token_ids: AbstractSequence[int], extra: bytes = b"") -> bytes:
    """The key of a block that holds `token_ids` behind the block (or root) with key `parent`; 16 bytes."""
    # BLAKE2b takes 64 bytes of key and no more.
    extra_key = hashlib.blake2b(extra).digest() if extra else b""
    digest = hashlib.blake2b(parent, digest_size=16, key=extra_key)
    digest.update(array("q", token_ids).tobytes())
    return digest.digest()


def content_id(digest: bytes, index: int) -> int:
    """What stands for number `index` of the embeddings of an image in place of a token: below zero, as no token is.

    All images have the same token in a prompt, and it says nothing of what is seen. Equal ids mean the same embedding
    of the same image, so that keys made of them differ wherever images do, inside a block too.
    """
    mixed = hashlib.blake2b(digest + index.to_bytes(8, "little"), digest_size=8).digest()
    return -1 - (int.from_bytes(mixed, "little") >> 1)


def salted(prefix_ids: AbstractSequence[int], salt: str) -> tuple[int, ...]:
    """`prefix_ids` as they are known to those who share `salt`: the first one stands for it as well.

    Keys are chained and beginnings are compared from the first id on, so that no prefix of another salt is found.
    """
    if not salt or not prefix_ids:
        return tuple(prefix_ids)
    digest = hashlib.blake2b(salt.encode() + prefix_ids[0].to_bytes(8, "little", signed=True)).digest()
    return (content_id(digest, 0), *prefix_ids[1:])


@dataclass(frozen=True)
class PartialHit:
    """The first `num_tokens` slots of `block` hold what a sequence needs next; copy them, do not share them."""

    block: int
    num_tokens: int


@dataclass(frozen=True)
class _Entry:
    key: bytes
    parent: bytes
    token_ids: tuple[int, ...]


class PrefixIndex:
    """Maps block keys to physical blocks, at most one key a block and one block a key."""

    def __init__(self) -> None:
        self._block_by_key: dict[bytes, int] = {}
        self._entry_by_block: dict[int, _Entry] = {}
        self._children: dict[bytes, set[int]] = {}

    def __len__(self) -> int:
        return len(self._entry_by_block)

    def __contains__(self, block: int) -> bool:
        return block in self._entry_by_block

    def enter(self, block: int, parent: bytes, token_ids: AbstractSequence[int]) -> bytes:
        """Make `block` findable as `token_ids` behind `parent` and return its key.

        A key that another block already answers for stays with that block: `block` is then not findable.
        """
        key = block_key(parent, token_ids)
        self.forget(block)
        if key not in self._block_by_key:
            self._block_by_key[key] = block
            self._entry_by_block[block] = _Entry(key, parent, tuple(token_ids))
            self._children.setdefault(parent, set()).add(block)
        return key

    def forget(self, block: int) -> None:
        """Make `block` unfindable; nothing happens when it was not findable."""
        entry = self._entry_by_block.pop(block, None)
        if entry is None:
            return
        del self._block_by_key[entry.key]
        siblings = self._children[entry.parent]
        siblings.discard(block)
        if not siblings:
            del self._children[entry.parent]

    def full_key(self, block: int) -> bytes | None:
        """The key of `block`, if it is full and findable."""
        entry = self._entry_by_block.get(block)
        return entry.key if entry is not None and len(entry.token_ids) == BLOCK_SIZE else None

    def find(self, key: bytes) -> int | None:
        """The full block with this key, if there is one."""
        return self._block_by_key.get(key)

    def children(self, parent: bytes) -> AbstractSet[int]:
        """The blocks that can be found behind the block (or root) with key `parent`."""
        return self._children.get(parent, frozenset())

    def find_partial(
        self, parent: bytes, token_ids: AbstractSequence[int], exclude: AbstractSet[int] = frozenset()
    ) -> PartialHit | None:
        """The block behind `parent` that begins with the most of `token_ids`, if it is enough to be worth a copy.

        Blocks in `exclude` are passed over.
        """
        best: PartialHit | None = None
        for block in self.children(parent) - exclude:
            num_tokens = _common_length(self._entry_by_block[block].token_ids, token_ids)
            if num_tokens >= _MIN_PARTIAL_TOKENS and (best is None or num_tokens > best.num_tokens):
                best = PartialHit(block, num_tokens)
        return best


def chain_keys(token_ids: AbstractSequence[int], known: list[bytes]) -> None:
    """Append to `known` the keys of the full blocks of `token_ids` that it does not hold yet."""
    for index in range(len(known), len(token_ids) // BLOCK_SIZE):
        parent = known[-1] if known else ROOT_KEY
        known.append(block_key(parent, token_ids[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]))


def _common_length(left: AbstractSequence[int], right: AbstractSequence[int]) -> int:
    length = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        length += 1
    return length
