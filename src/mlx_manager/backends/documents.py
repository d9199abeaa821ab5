"""Turns the PDF documents of a conversation into their text, in bounded processes, for models that take none."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import OrderedDict
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from mlx_manager.errors import InvalidRequest, PayloadTooLarge
from mlx_manager.ir import ChatPrompt, Content, DocumentContent, Message, Prompt, TextContent

_MODULE = "mlx_manager.worker.pdf_text"


@dataclass(frozen=True)
class DocumentLimits:
    """What reading a document may take."""

    max_bytes: int = 32 * 1024**2
    max_documents: int = 20
    """In one request."""
    max_pages: int = 600
    max_characters: int = 4_000_000
    timeout_s: float = 30.0
    """For one document."""
    max_kept_characters: int = 16_000_000
    """Of the texts that are kept, because a conversation sends its documents again with every turn."""


class _Read(msgspec.Struct, frozen=True):
    """What the process says."""

    text: str = ""
    refusal: str = ""


class DocumentReader:
    """Reads documents, two at a time, and keeps the texts of those that were read last."""

    def __init__(self, limits: DocumentLimits | None = None) -> None:
        self._limits = limits or DocumentLimits()
        self._turn = asyncio.Semaphore(2)
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self._num_kept = 0

    async def told(self, prompt: Prompt) -> Prompt:
        """`prompt` with the text of each document in its place. Raises `InvalidRequest` that names what has none."""
        if not isinstance(prompt, ChatPrompt) or not any(message.documents for message in prompt.messages):
            return prompt
        if sum(len(message.documents) for message in prompt.messages) > self._limits.max_documents:
            raise InvalidRequest(
                f"The request has more than {self._limits.max_documents} documents: send fewer.", param="messages"
            )
        messages = [await self._message(message, f"messages[{i}]") for i, message in enumerate(prompt.messages)]
        return replace(prompt, messages=tuple(messages))

    async def _message(self, message: Message, at: str) -> Message:
        if not message.documents:
            return message
        content = [await self._piece(piece, f"{at}.content[{index}]") for index, piece in enumerate(message.content)]
        return replace(message, content=tuple(content))

    async def _piece(self, piece: Content, at: str) -> Content:
        if not isinstance(piece, DocumentContent):
            return piece
        text = await self._text(piece, at)
        return TextContent(f"{piece.name}\n{text}" if piece.name else text)

    async def _text(self, document: DocumentContent, at: str) -> str:
        if len(document.data) > self._limits.max_bytes:
            raise PayloadTooLarge(f"The document of {at} is larger than {self._limits.max_bytes} bytes.", param=at)
        key = hashlib.sha256(document.data).digest()
        async with self._turn:
            known = self._texts.get(key)
            if known is not None:
                self._texts.move_to_end(key)
                return known
            read = await self._read(document.data)
        if read.refusal:
            raise InvalidRequest(f"The document of {at} is not taken: {read.refusal}.", param=at)
        self._keep(key, read.text)
        return read.text

    async def _read(self, file: bytes) -> _Read:
        limits = self._limits
        bounds = ["--most-pages", str(limits.max_pages), "--most-characters", str(limits.max_characters)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, *bounds, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        try:
            async with asyncio.timeout(limits.timeout_s):
                answer, _ = await process.communicate(file)
        except TimeoutError:
            return _Read(refusal=f"it took longer than {limits.timeout_s:g} s to read: send its text instead")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            return _Read(refusal="it cannot be read: save it anew, or send its text instead")
        return msgspec.json.decode(answer, type=_Read)

    def _keep(self, key: bytes, text: str) -> None:
        if key in self._texts:
            return
        self._texts[key] = text
        self._num_kept += len(text)
        while self._num_kept > self._limits.max_kept_characters:
            _, dropped = self._texts.popitem(last=False)
            self._num_kept -= len(dropped)
