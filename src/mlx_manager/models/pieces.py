"""Images in conversations on their way through a chat template: marks in the text become the pieces it wants.

Everything that prepares messages works on texts, so an image travels as a mark in the text of its message, which nobody
outside can write. Templates of vision models take lists of pieces; some take texts as well, some write nothing at all
for a text, some want one from an assistant. So each is asked, role by role, what it does with either.
"""

from __future__ import annotations

import secrets
from typing import Any

from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.ir import ChatPrompt, ImageContent, TextContent

_PROBE = "mlxmanagerprobe"
_LEADS: dict[str, list[dict[str, Any]]] = {
    "assistant": [{"role": "user", "content": [{"type": "text", "text": "-"}]}],
    "tool": [{"role": "user", "content": [{"type": "text", "text": "-"}]}],
}
"""What a template wants to see before a message of a role."""
_REFUSALS = (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError)


class SeeingTokenizer:
    """A tokenizer whose chat template is given pieces. In all else it is the one that it wraps.

    `placeholder` stands for an image where the template of a model takes texts only.
    """

    def __init__(self, tokenizer: TokenizerWrapper, placeholder: str) -> None:
        self._wrapped = tokenizer
        self._placeholder = placeholder
        self._mark = f"mlximage{secrets.token_hex(8)}"
        self._shown: dict[tuple[str, bool], bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __len__(self) -> int:
        return len(self._wrapped)

    def marked(self, prompt: ChatPrompt) -> ChatPrompt:
        """`prompt` with a mark for each image."""
        mark = TextContent(self._mark)
        messages = [
            replace(
                said,
                content=tuple(mark if isinstance(piece, ImageContent) else piece for piece in said.content),
            )
            if said.images
            else said
            for said in prompt.messages
        ]
        return replace(prompt, messages=tuple(messages))

    def apply_chat_template(self, messages: list[dict[str, Any]], **named: Any) -> Any:
        """As the wrapped one does, with the content of every message in the form that the template shows."""
        return self._wrapped.apply_chat_template([self._in_form(message) for message in messages], **named)

    def render_image(self) -> str:
        """A conversation that is one image and nothing else, with what the model is to go on from."""
        message = {"role": "user", "content": self._mark}
        return str(self.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def _in_form(self, message: dict[str, Any]) -> dict[str, Any]:
        content, role = message.get("content"), str(message.get("role"))
        if not isinstance(content, str) or not content:
            return message
        has_image = self._mark in content
        if not has_image and (self._shows(role, is_list=False) or not self._shows(role, is_list=True)):
            return message
        if has_image and not self._shows(role, is_list=True):
            return message | {"content": content.replace(self._mark, self._placeholder)}
        return message | {"content": self._pieces(content)}

    def _pieces(self, content: str) -> list[dict[str, Any]]:
        """The text between the marks, without the line breaks that joined it to them."""
        pieces: list[dict[str, Any]] = []
        texts = content.split(self._mark)
        for index, text in enumerate(texts):
            if index:
                pieces.append({"type": "image"})
                text = text.removeprefix("\n")  # noqa: PLW2901  # what joins pieces is no part of either
            said = text.removesuffix("\n") if index < len(texts) - 1 else text
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
