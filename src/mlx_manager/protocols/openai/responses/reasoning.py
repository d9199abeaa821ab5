"""Thinking that travels with a client who keeps no text of it: `encrypted_content` of a reasoning item.

It is no secret to anybody: the model is on this machine, and the client may read its thinking anyway. What the dialect
calls encrypted is here only packed, so that it comes back exactly as it was.
"""

from __future__ import annotations

import base64
import binascii
import zlib

_MARK = "mlxm1."
_MAX_CHARS = 4_000_000


def pack_reasoning(text: str) -> str:
    """`text` in a form that clients pass on unread."""
    return _MARK + base64.urlsafe_b64encode(zlib.compress(text.encode())).decode("ascii")


def unpack_reasoning(packed: str) -> str | None:
    """The text again; None for what another provider has packed, or what has been damaged."""
    if not packed.startswith(_MARK):
        return None
    try:
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(base64.urlsafe_b64decode(packed[len(_MARK) :]), _MAX_CHARS)
        return None if unpacker.unconsumed_tail else unpacked.decode()
    except (binascii.Error, ValueError, zlib.error):
        return None
