"""How long a prompt is, before anybody has tokenized it."""

from __future__ import annotations

from mlx_manager.ir.request import ChatPrompt, Message, Prompt, TextPrompt, TokenPrompt, VideoContent

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 1000
_FRAMES_PER_VIDEO = 16
"""Of one that nobody has opened yet."""


def estimate_tokens(prompt: Prompt) -> int:
    """A token for every four characters, tools included, and 1,000 for each image and each frame of a video.

    Exact for token ids.
    """
    match prompt:
        case ChatPrompt(messages=messages, tools=tools):
            num_characters = sum(len(message.text) + len(message.reasoning) for message in messages)
            num_characters += sum(len(call.arguments) for message in messages for call in message.tool_calls)
            num_characters += sum(len(tool.description) + len(tool.parameters) for tool in tools)
            num_images = sum(_num_images(message) for message in messages)
            return num_characters // _CHARACTERS_PER_TOKEN + num_images * _TOKENS_PER_IMAGE
        case TextPrompt(text=text):
            return len(text) // _CHARACTERS_PER_TOKEN
        case TokenPrompt(token_ids=token_ids):
            return len(token_ids)


def _num_images(message: Message) -> int:
    return sum(
        (len(piece.frames) or _FRAMES_PER_VIDEO) if isinstance(piece, VideoContent) else 1 for piece in message.visuals
    )
