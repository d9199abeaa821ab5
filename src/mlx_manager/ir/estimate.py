"""How long a prompt is, before anybody has tokenized it."""

from __future__ import annotations

from mlx_manager.ir.request import ChatPrompt, Message, Prompt, TextPrompt, TokenPrompt, VideoContent

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 1000
_FRAMES_PER_VIDEO = 16
"""Of one that nobody has opened yet."""
_TOKENS_PER_DOCUMENT = 3000


def estimate_tokens(prompt: Prompt) -> int:
    """A token for every four characters, tools included, 1,000 for an image or a frame, 3,000 for a document.

    Exact for token ids.
    """
    match prompt:
        case ChatPrompt(messages=messages, tools=tools):
            num_characters = sum(len(message.text) + len(message.reasoning) for message in messages)
            num_characters += sum(len(call.arguments) for message in messages for call in message.tool_calls)
            num_characters += sum(len(tool.description) + len(tool.parameters) for tool in tools)
            num_images = sum(_num_images(message) for message in messages)
            num_documents = sum(len(message.documents) for message in messages)
            num_tokens = num_characters // _CHARACTERS_PER_TOKEN
            return num_tokens + num_images * _TOKENS_PER_IMAGE + num_documents * _TOKENS_PER_DOCUMENT
        case TextPrompt(text=text):
            return len(text) // _CHARACTERS_PER_TOKEN
        case TokenPrompt(token_ids=token_ids):
            return len(token_ids)


def _num_images(message: Message) -> int:
    return sum(
        (len(piece.frames) or _FRAMES_PER_VIDEO) if isinstance(piece, VideoContent) else 1 for piece in message.visuals
    )
