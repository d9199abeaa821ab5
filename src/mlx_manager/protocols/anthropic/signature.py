"""The signature of a thinking block: the text that was thought, sealed so that it survives a client that shows nothing.

A client sends the blocks of an answer back as they came. Where it asked for `display: omitted`, their text is empty,
and the signature alone tells what the model thought; the chat template needs it, and the prefix cache too.
"""

from __future__ import annotations

import base64
import binascii
import zlib

_PREFIX = "mlxm1."
_MAX_BYTES = 4 * 1024**2
"""Of a text: a signature that claims more is none of ours."""


def sign(thinking: str) -> str:
    """The signature of a text."""
    return _PREFIX + base64.urlsafe_b64encode(zlib.compress(thinking.encode())).decode()


def is_ours(signature: str) -> bool:
    """Whether a signature was made here."""
    return signature.startswith(_PREFIX)


def read(signature: str) -> str | None:
    """The text in a signature of ours; None where it is another's, or not as it was made."""
    if not is_ours(signature):
        return None
    try:
        packed = base64.urlsafe_b64decode(signature.removeprefix(_PREFIX))
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, _MAX_BYTES)
        return text.decode() if unpacker.eof else None
    except (binascii.Error, zlib.error, ValueError):
        return None
