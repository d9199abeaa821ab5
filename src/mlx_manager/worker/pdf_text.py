"""The process that reads one PDF: `python -m mlx_manager.worker.pdf_text --most-pages N --most-characters N`.

The file comes in on stdin, and its text, or why there is none, goes out on stdout as JSON. It is a process of its own
because a file of a stranger's may take any time and any memory to read, and a process can be ended.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys

import msgspec
from pypdf import PasswordType, PdfReader
from pypdf.errors import PyPdfError

_MOST_MEMORY_BYTES = 2 * 1024**3
_BROKEN = (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OSError)
"""What pypdf raises for files that are not what they should be."""


class PdfText(msgspec.Struct, frozen=True, omit_defaults=True):
    """What there is to say about a file. Either is empty."""

    text: str = ""
    refusal: str = ""


def main(arguments: list[str] | None = None) -> None:
    """Read stdin, write stdout."""
    parser = argparse.ArgumentParser(prog="python -m mlx_manager.worker.pdf_text")
    parser.add_argument("--most-pages", type=int, required=True)
    parser.add_argument("--most-characters", type=int, required=True)
    asked = parser.parse_args(arguments)
    if sys.platform == "linux":  # macOS does not keep to it
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    told = read_pdf(sys.stdin.buffer.read(), asked.most_pages, asked.most_characters)
    sys.stdout.buffer.write(msgspec.json.encode(told))


def read_pdf(file: bytes, most_pages: int, most_characters: int) -> PdfText:
    """The text of all pages, an empty line between them."""
    try:
        pages = _pages(PdfReader(io.BytesIO(file)), most_pages, most_characters)
    except _Refused as refused:
        return PdfText(refusal=str(refused))
    except MemoryError:
        return PdfText(refusal="it takes too much memory to read: send its text instead")
    except _BROKEN as error:
        return PdfText(refusal=f"it cannot be read ({type(error).__name__}): save it anew, or send its text instead")
    # a lone half of a character is nothing that JSON holds
    return PdfText(text="\n\n".join(pages).encode("utf-8", "replace").decode())


class _Refused(Exception):
    """Why, and what to do about it."""


def _pages(reader: PdfReader, most_pages: int, most_characters: int) -> list[str]:
    # many are encrypted without a password, to forbid printing
    if reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED:
        raise _Refused("it is encrypted: save it without its password")
    num_pages = len(reader.pages)
    if num_pages > most_pages:
        raise _Refused(f"it has {num_pages} pages, and {most_pages} are read: send those that matter")
    texts: list[str] = []
    num_characters = 0
    for page in reader.pages:
        text = page.extract_text().strip()
        num_characters += len(text)
        if num_characters > most_characters:
            raise _Refused(f"it has more than {most_characters} characters: send the part that matters")
        if text:
            texts.append(text)
    if not texts:
        raise _Refused("it has no text, only pictures of it: send its pages as images, to a model that sees")
    return texts


if __name__ == "__main__":
    main()
