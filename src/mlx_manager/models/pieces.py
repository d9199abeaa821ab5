"""Images and videos on their way through a chat template: marks in the text become the pieces it wants.

Everything that prepares messages works on texts, so an image or a video travels as a mark in the text of its message,
which nobody outside can write. Templates of vision models take lists of pieces; some take texts as well, some write
nothing at all for a text, some want one from an assistant. So each is asked, role by role, what it does with either.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.ir import ChatPrompt, Content, ImageContent, TextContent

_PROBE = "mlxmanagerprobe"
_LEADS: dict[str, list[dict[str, Any]]] = {
    "assistant": [{"role": "user", "content": [{"type": "text", "text": "-"}]}],
    "tool": [{"role": "user", "content": [{"type": "text", "text": "-"}]}],
}
"""What a template wants to see before a message of a role."""
_REFUSALS = (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError)


class SeeingTokenizer:
    """A tokenizer whose chat template is given pieces. In all else it is the one that it wraps.

    `placeholders` stand for an image and for a video where the template of a model takes texts only.
    """

    def __init__(self, tokenizer: TokenizerWrapper, *placeholders: str) -> None:
        self._wrapped = tokenizer
        secret = secrets.token_hex(8)
        self._marks = {f"mlximage{secret}": "image", f"mlxvideo{secret}": "video"}
        self._image_mark, self._video_mark = self._marks
        self._placeholders = dict(zip(self._marks, placeholders, strict=False))
        self._split = re.compile("(" + "|".join(self._marks) + ")").split
        self._shown: dict[tuple[str, bool], bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __len__(self) -> int:
        return len(self._wrapped)

    def marked(self, prompt: ChatPrompt, num_stills: Sequence[int] | None = None) -> ChatPrompt:
        """`prompt` with a mark for each image and each video.

        `num_stills` says of each video in turn as how many images it is shown; None: all are shown as videos.
        """
        counts = None if num_stills is None else iter(num_stills)

        def marks(piece: Content) -> tuple[Content, ...]:
            if isinstance(piece, TextContent):
                return (piece,)
            if isinstance(piece, ImageContent):
                return (TextContent(self._image_mark),)
            if counts is None:
                return (TextContent(self._video_mark),)
            return (TextContent(self._image_mark),) * next(counts)

        messages = [
            replace(said, content=tuple(mark for piece in said.content for mark in marks(piece)))
            if said.visuals
            else said
            for said in prompt.messages
        ]
        return replace(prompt, messages=tuple(messages))

    def apply_chat_template(self, messages: list[dict[str, Any]], **named: Any) -> Any:
        """As the wrapped one does, with the content of every message in the form that the template shows."""
        return self._wrapped.apply_chat_template([self._in_form(message) for message in messages], **named)

    def render_image(self) -> str:
        """A conversation that is one image and nothing else, with what the model is to go on from."""
        return self._render_mark(self._image_mark)

    def render_video(self) -> str:
        """The same of one video, for a model that takes such."""
        return self._render_mark(self._video_mark)

    def _render_mark(self, mark: str) -> str:
        message = {"role": "user", "content": mark}
        return str(self.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def _in_form(self, message: dict[str, Any]) -> dict[str, Any]:
        content, role = message.get("content"), str(message.get("role"))
        if not isinstance(content, str) or not content:
            return message
        has_mark = any(mark in content for mark in self._marks)
        if not has_mark and (self._shows(role, is_list=False) or not self._shows(role, is_list=True)):
            return message
        if has_mark and not self._shows(role, is_list=True):
            return message | {"content": "".join(self._placeholders.get(text, text) for text in self._split(content))}
        return message | {"content": self._pieces(content)}

    def _pieces(self, content: str) -> list[dict[str, Any]]:
        """The text between the marks, without the line breaks that joined it to them."""
        pieces: list[dict[str, Any]] = []
        # texts at even places, marks between them
        split = self._split(content)
        for index, text in enumerate(split):
            if index % 2:
                pieces.append({"type": self._marks[text]})
                continue
            # what joins pieces is no part of either
            said = text.removeprefix("\n") if index else text
            said = said.removesuffix("\n") if index < len(split) - 1 else said
            if said:
                pieces.append({"type": "text", "text": said})
        return pieces

    def _shows(self, role: str, *, is_list: bool) -> bool:
        """Whether the template writes a text of this role that comes as a list of pieces, or as it is."""
        if (role, is_list) not in self._shown:
            content: Any = [{"type": "text", "text": _PROBE}] if is_list else _PROBE
            asked = [*_LEADS.get(role, []), {"role": role, "content": content}]
            if role == "system":
                asked.append({"role": "user", "content": content})
            try:
                text = str(self._wrapped.apply_chat_template(asked, tokenize=False))
            except _REFUSALS:
                text = ""
            self._shown[role, is_list] = text.count(_PROBE) == sum(entry["content"] == content for entry in asked)
        return self._shown[role, is_list]
