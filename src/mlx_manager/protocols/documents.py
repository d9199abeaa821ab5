"""Documents as the HTTP dialects send them, as files in base64 or by address, to `ir.DocumentContent` and back."""

from __future__ import annotations

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import Content, DocumentContent, TextContent
from mlx_manager.protocols.data_urls import decode_base64, parse_url, split_data_url

PDF = "application/pdf"
_MOST_JUNK_BYTES = 1024
"""Before the mark of a PDF, as readers have always allowed."""


def parse_pdf(text: str, name: str, *, at: str) -> DocumentContent:
    """The document whose file is written as base64 in `text`. Raises `InvalidRequest`."""
    return _checked(decode_base64(text, at), name, at)


def parse_document_url(url: str, name: str, *, at: str) -> DocumentContent:
    """The document that `url` names (`https://…`) or holds. Raises `InvalidRequest`, and `UnsupportedParameter`."""
    _, content = parse_url(url, kind="application", example=PDF, at=at)
    return DocumentContent(url=url, name=name) if content is None else _checked(content, name, at)


def _checked(content: bytes, name: str, at: str) -> DocumentContent:
    if b"%PDF-" not in content[:_MOST_JUNK_BYTES]:
        raise InvalidRequest(f"{at} is no PDF file: send one whole, or its text.", param=at)
    return DocumentContent(data=content, name=name)


def parse_file(file_data: str | None, filename: str | None, *, at: str) -> Content:
    """A file of OpenAI's dialect: a PDF, or a text, in a data URL or as bare base64.

    Raises `InvalidRequest`, and `UnsupportedParameter` for a file that is not in the request or of another kind.
    """
    if file_data is None:
        raise UnsupportedParameter(
            f"{at} has no file_data: files are not kept or fetched here, so send the file itself as a data URL.",
            param=f"{at}.file_data",
        )
    at, name = f"{at}.file_data", filename or ""
    if file_data[:5].lower() != "data:":
        return parse_pdf(file_data, name, at=at)
    media_type, packed = split_data_url(file_data, example=PDF, at=at)
    if media_type.startswith("text/"):
        try:
            text = decode_base64(packed, at).decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{at} is no text in UTF-8: send one.", param=at) from None
        return TextContent(f"{name}\n{text}" if name else text)
    if media_type not in (PDF, "application/octet-stream", ""):
        raise UnsupportedParameter(f"{at} holds {media_type[:60]}: send a PDF, or a text.", param=at)
    return parse_pdf(packed, name, at=at)
