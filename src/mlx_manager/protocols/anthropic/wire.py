"""The wire schemas of requests in Anthropic's dialect: names, types and bounds of the parameters that are served.

What they mean together is `server`'s; what becomes of every other parameter is in `parameters`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mlx_manager.protocols.model_name import ModelName
from mlx_manager.protocols.wire import INT64, Whole, Wire

MAX_MESSAGES = 100_000
MAX_STOP_SEQUENCES = 64
MAX_TOOLS = 1024


class CacheControl(Wire):
    """A mark: what it ends is to be kept in the provider's cache."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Marked(Wire):
    """What may end with a cache mark."""

    cache_control: CacheControl | None = None


class TextBlock(Marked):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageSource(Wire):
    """Where a picture is: in the request, at an address, or among the provider's files."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class ImageBlock(Marked):
    """A picture."""

    type: Literal["image"]
    source: ImageSource


class DocumentSource(Wire):
    """Where a document is: its text, its content as blocks, a file, or the address of one."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: Content | None = None


class DocumentBlock(Marked):
    """A document."""

    type: Literal["document"]
    source: DocumentSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Marked):
    """What the client's own search found."""

    type: Literal["search_result"]
    source: str
    title: str
    content: list[TextBlock]


class ThinkingBlock(Wire):
    """What the assistant thought, as it comes back; see `signature`."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Wire):
    """What a model of the provider's thought, sealed: nothing that another model could read."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Marked):
    """A tool call that the assistant made earlier, as it comes back."""

    type: Literal["tool_use"]
    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    input: dict[str, Any]


class ToolResultBlock(Marked):
    """The result of a tool call."""

    type: Literal["tool_result"]
    tool_use_id: str = Field(min_length=1)
    content: Content | None = None
    is_error: bool | None = None


class ToolReferenceBlock(Wire):
    """A tool that a search for tools found: it may be called from there on."""

    type: Literal["tool_reference"]
    tool_name: str


class ChangedTool(Wire):
    """Which tool a `tool_addition` or `tool_removal` is about: by name, or as a definition."""

    type: str
    name: str | None = None
    tool_name: str | None = None
    definition: ToolDefinition | None = None


class ToolChangeBlock(Wire):
    """A tool that may, or may no longer, be called from there on."""

    type: Literal["tool_addition", "tool_removal"]
    tool: ChangedTool


class OtherBlock(Wire):
    """A block of a type that has no schema here."""

    type: str


_BLOCKS = frozenset(
    (
        "text",
        "image",
        "document",
        "search_result",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
        "tool_reference",
        "tool_addition",
        "tool_removal",
    )
)


def _type_of_block(block: object) -> str:
    sent = block.get("type") if isinstance(block, dict) else None
    if sent in ("tool_addition", "tool_removal"):
        return "<tool_change>"
    return f"<{sent}>" if isinstance(sent, str) and sent in _BLOCKS else "<other>"


Block = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ImageBlock, Tag("<image>")]
    | Annotated[DocumentBlock, Tag("<document>")]
    | Annotated[SearchResultBlock, Tag("<search_result>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[RedactedThinkingBlock, Tag("<redacted_thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")]
    | Annotated[ToolReferenceBlock, Tag("<tool_reference>")]
    | Annotated[ToolChangeBlock, Tag("<tool_change>")]
    | Annotated[OtherBlock, Tag("<other>")],
    Discriminator(_type_of_block),
]


def _form_of_content(content: object) -> str:
    return "<blocks>" if isinstance(content, list) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[Block], Tag("<blocks>")], Discriminator(_form_of_content)
]


class SentMessage(Wire):
    """One turn as it is sent. A system message in the middle may be meant for one turn only (`clear_at`)."""

    role: Literal["user", "assistant", "system"]
    content: Content | None = None
    clear_at: Literal["next_user_message", "never"] | None = None


class ToolDefinition(Marked):
    """An entry of `tools`. One without a type, or of the type custom, is the client's own."""

    type: str | None = None
    name: str | None = Field(None, pattern=r"^[a-zA-Z0-9_.-]{1,256}$")
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None


class SentToolChoice(Wire):
    """Whether tools are to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Wire):
    """Whether the model is to think, and how much of it is shown."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Whole | None = Field(None, ge=1, lt=INT64)
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Wire):
    """The form that the answer must have."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Wire):
    """How much effort the answer is to take, and its form."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class PromptFields(Marked):
    """What both endpoints take. `None` is the same as not sent."""

    model: ModelName
    messages: list[SentMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: (
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[list[TextBlock], Tag("<blocks>")],
            Discriminator(_form_of_content),
        ]
        | None
    ) = None
    tools: list[ToolDefinition] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: SentToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """The form before `output_config.format`."""


class CountTokensRequest(PromptFields):
    """The body of POST /v1/messages/count_tokens."""


class MessagesRequest(PromptFields):
    """The body of POST /v1/messages."""

    max_tokens: Whole = Field(ge=0, lt=INT64)
    """0 only fills the prefix cache."""
    stop_sequences: list[str] | None = Field(None, max_length=MAX_STOP_SEQUENCES)
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Whole | None = Field(None, ge=0, lt=INT64)


for _model in (DocumentSource, DocumentBlock, ToolResultBlock, ChangedTool, ToolChangeBlock, SentMessage):
    _model.model_rebuild()
