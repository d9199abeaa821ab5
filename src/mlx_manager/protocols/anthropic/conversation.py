"""A conversation of Anthropic's dialect as `ir.ChatPrompt`.

What says the same is made the same, so that the next turn begins with the same tokens: text as a string or as a block,
and prompts with another nonce (see `nonces`). Cache marks are kept for providers; a model here is not told them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ChatPrompt, Content, Message, Role, TextContent, Thinking, ToolCall, ToolChoiceMode
from mlx_manager.protocols.anthropic import signature
from mlx_manager.protocols.anthropic.cache_marks import parse_ttl
from mlx_manager.protocols.anthropic.contents import parse_content, parse_contents
from mlx_manager.protocols.anthropic.nonces import without_billing, without_budget
from mlx_manager.protocols.anthropic.tools import ToolShelf, parse_tool_choice
from mlx_manager.protocols.anthropic.wire import (
    Block,
    PromptFields,
    RedactedThinkingBlock,
    SentMessage,
    TextBlock,
    ThinkingBlock,
    ToolChangeBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)


def parse_conversation(wire: PromptFields) -> ChatPrompt:
    """The prompt of a request. Raises `InvalidRequest`."""
    shelf = ToolShelf(wire.tools or ())
    reader = _Reader(shelf)
    reader.read_system(wire.system)
    for index, message in enumerate(wire.messages):
        is_later_asked = any(later.role == "user" for later in wire.messages[index + 1 :])
        if not (message.clear_at == "next_user_message" and is_later_asked):
            reader.read(message, f"messages[{index}]")
    messages = reader.messages
    if messages and messages[-1].role is Role.ASSISTANT and _says_nothing(messages[-1]):
        messages.pop()  # there is nothing to go on with
    if not any(message.role is not Role.SYSTEM for message in messages):
        raise InvalidRequest("messages hold nothing to answer: send a user message.", param="messages")
    tool_choice = parse_tool_choice(wire.tool_choice, shelf.tools)
    continues = messages[-1].role is Role.ASSISTANT
    if continues and messages[-1].tool_calls:
        raise InvalidRequest(
            "messages end with a tool_use: send its tool_result in a user message behind it.",
            param=f"messages[{len(wire.messages) - 1}]",
        )
    if continues and tool_choice.mode is ToolChoiceMode.REQUIRED:
        raise InvalidRequest(
            "tool_choice asks for a tool call, which cannot go on with an assistant message: leave one of them out.",
            param="tool_choice",
        )
    return ChatPrompt(
        messages=tuple(messages),
        continue_final_message=continues,
        tools=shelf.tools,
        tool_choice=tool_choice,
        parallel_tool_calls=wire.tool_choice is None or not wire.tool_choice.disable_parallel_tool_use,
        thinking=_parse_thinking(wire),
        cache_ttl=parse_ttl(wire.cache_control),
    )


class _Reader:
    """Reads messages one after the other. Turns of one role in a row are one turn, as the dialect has it."""

    def __init__(self, shelf: ToolShelf) -> None:
        self.messages: list[Message] = []
        self._shelf = shelf
        self._calls: dict[str, str] = {}
        """Names of the tools called, by id."""
        self._answered: set[str] = set()

    def read_system(self, system: str | Sequence[TextBlock] | None) -> None:
        blocks = [TextBlock(type="text", text=system)] if isinstance(system, str) else system or ()
        content = tuple(
            TextContent(kept, parse_ttl(block.cache_control))
            for block in blocks
            if (kept := _without_nonces(block.text))
        )
        if content:
            self.messages.append(Message(role=Role.SYSTEM, content=content))

    def read(self, message: SentMessage, at: str) -> None:
        at = f"{at}.content"
        content = message.content
        if content is None:
            if message.role != "system":
                raise InvalidRequest(f"{at} is required: send a string or a list of blocks.", param=at)
            return  # a system message may set something for its turn and say nothing
        blocks = [TextBlock(type="text", text=content)] if isinstance(content, str) else content
        match message.role:
            case "user":
                self._read_user(blocks, at)
            case "assistant":
                self._read_assistant(blocks, at)
            case _:
                if pieces := self._pieces(blocks, at):
                    self.messages.append(Message(role=Role.SYSTEM, content=pieces))

    def _read_user(self, blocks: Sequence[Block], at: str) -> None:
        """Results come before everything else, in whatever order they are sent: templates look for them there."""
        said: list[tuple[Block, str]] = []
        for index, block in enumerate(blocks):
            if isinstance(block, ToolResultBlock):
                self._read_result(block, f"{at}[{index}]")
            else:
                said.append((block, f"{at}[{index}]"))
        pieces = tuple(piece for block, block_at in said for piece in self._piece(block, block_at))
        has_results = len(said) < len(blocks)
        if pieces or not has_results:
            self._add(Message(role=Role.USER, content=pieces))

    def _read_result(self, block: ToolResultBlock, at: str) -> None:
        call_id = block.tool_use_id
        if call_id not in self._calls:
            known = ", ".join(repr(known_id) for known_id in list(self._calls)[-5:]) or "none"
            raise InvalidRequest(
                f"{at}.tool_use_id cannot be {call_id[:80]!r}: name a tool_use of an assistant message before it "
                f"(there: {known}).",
                param=f"{at}.tool_use_id",
            )
        if call_id in self._answered:
            raise InvalidRequest(
                f"{at}.tool_use_id {call_id[:80]!r} has a result already: send one for each tool_use.",
                param=f"{at}.tool_use_id",
            )
        self._answered.add(call_id)
        pieces: tuple[Content, ...] = ()
        if isinstance(block.content, str):
            pieces = parse_contents(block.content, at)
        elif block.content:
            pieces = self._pieces(block.content, f"{at}.content", has_nonces=False)
        self.messages.append(
            Message(
                role=Role.TOOL,
                content=pieces,
                name=self._calls[call_id],
                tool_call_id=call_id,
                is_error=bool(block.is_error),
                cache_ttl=parse_ttl(block.cache_control),
            )
        )

    def _read_assistant(self, blocks: Sequence[Block], at: str) -> None:
        thoughts: list[str] = []
        seal = ""
        content: list[Content] = []
        calls: list[ToolCall] = []
        for index, block in enumerate(blocks):
            match block:
                case ThinkingBlock():
                    thoughts.append(block.thinking or signature.read(block.signature) or "")
                    seal = "" if signature.is_ours(block.signature) else block.signature
                case RedactedThinkingBlock():
                    pass
                case ToolUseBlock():
                    calls.append(self._read_call(block, f"{at}[{index}]"))
                case _:
                    content += parse_content(block, f"{at}[{index}]")
        self._add(
            Message(
                role=Role.ASSISTANT,
                content=tuple(content),
                reasoning="\n".join(thought for thought in thoughts if thought),
                reasoning_signature=seal,
                tool_calls=tuple(calls),
            )
        )

    def _read_call(self, block: ToolUseBlock, at: str) -> ToolCall:
        if block.id in self._calls:
            raise InvalidRequest(
                f"{at}.id {block.id[:80]!r} is the id of a tool_use before it: every one needs its own.",
                param=f"{at}.id",
            )
        self._calls[block.id] = block.name
        return ToolCall(
            call_id=block.id,
            name=block.name,
            arguments=json.dumps(block.input, ensure_ascii=False),
            cache_ttl=parse_ttl(block.cache_control),
        )

    def _pieces(self, blocks: Sequence[Block], at: str, *, has_nonces: bool = True) -> tuple[Content, ...]:
        found = [self._piece(block, f"{at}[{index}]", has_nonces=has_nonces) for index, block in enumerate(blocks)]
        return tuple(piece for pieces in found for piece in pieces)

    def _piece(self, block: Block, at: str, *, has_nonces: bool = True) -> tuple[Content, ...]:
        match block:
            case TextBlock(text=text) if has_nonces:
                kept = without_budget(text)
                return (TextContent(kept, parse_ttl(block.cache_control)),) if kept else ()
            case ToolReferenceBlock(tool_name=name):
                told = self._shelf.load(name, f"{at}.tool_name")
            case ToolChangeBlock():
                told = self._change(block, f"{at}.tool")
            case _:
                return parse_content(block, at)
        return (TextContent(told),) if told else ()

    def _change(self, block: ToolChangeBlock, at: str) -> str:
        tool = block.tool
        if tool.definition is not None:
            return self._shelf.define(tool.definition, f"{at}.definition")
        name = tool.name or tool.tool_name
        if name is None:
            raise InvalidRequest(f"{at}.name is required: name a tool, or send its definition.", param=f"{at}.name")
        if block.type == "tool_addition":
            return self._shelf.load(name, f"{at}.name")
        self._shelf.remove(name)
        return ""

    def _add(self, message: Message) -> None:
        if self.messages and self.messages[-1].role is message.role:
            before = self.messages.pop()
            message = msgspec.structs.replace(
                message,
                content=(*before.content, *message.content),
                reasoning="\n".join(thought for thought in (before.reasoning, message.reasoning) if thought),
                tool_calls=(*before.tool_calls, *message.tool_calls),
            )
        self.messages.append(message)


def _says_nothing(message: Message) -> bool:
    return not (message.content or message.reasoning or message.tool_calls)


def _without_nonces(text: str) -> str:
    return without_budget(without_billing(text))


def _parse_thinking(wire: PromptFields) -> Thinking:
    """Who says nothing about thinking expects an answer that begins with its text."""
    effort = wire.output_config.effort if wire.output_config else None
    if wire.thinking is None or wire.thinking.type == "disabled":
        return Thinking(is_enabled=False, effort=effort)
    if wire.thinking.type != "enabled":
        return Thinking(effort=effort, is_adaptive=True)
    return Thinking(is_enabled=True, effort=effort, budget_tokens=wire.thinking.budget_tokens)
