"""The wire schema of requests to POST /v1/responses: names, types and bounds of what is served.

What the items mean together is `items`'; what becomes of every other parameter is in `parameters`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mlx_manager.protocols.openai.wire import (
    FUNCTION_NAME,
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
    Effort,
    FunctionDefinition,
    MaxTokens,
    SamplingFields,
    form_of_choice,
)
from mlx_manager.protocols.wire import Whole, Wire

MAX_ITEMS = 10_000


class SentPart(Wire):
    """One part of a message, or of what a tool answered. Its type says which of the fields it has."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


def _form_of(content: object) -> str:
    return "<parts>" if isinstance(content, list) else "<text>"


SentContent = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[SentPart], Tag("<parts>")], Discriminator(_form_of)
]


class SentItem(Wire):
    """What all items have."""

    id: str | None = None
    status: str | None = None


class SentMessage(SentItem):
    """A message, of anyone."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: SentContent


class SentFunctionCall(SentItem):
    """A call that the assistant made. `arguments` is JSON text."""

    type: Literal["function_call"]
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    namespace: str | None = None
    arguments: str = ""


class SentCallOutput(SentItem):
    """What a call was answered with."""

    type: Literal["function_call_output"]
    call_id: str = Field(min_length=1)
    output: SentContent


class SentThought(Wire):
    """A piece of reasoning."""

    type: str
    text: str


class SentReasoning(SentItem):
    """What the assistant thought, as it comes back."""

    type: Literal["reasoning"]
    summary: list[SentThought] = []
    content: list[SentThought] | None = None
    encrypted_content: str | None = None


class SentReference(Wire):
    """An item of a stored response, by its id."""

    type: Literal["item_reference"] = "item_reference"
    id: str = Field(min_length=1)


class SentOther(SentItem):
    """An item of a tool that runs at the provider; refused by its type."""

    type: str


def _kind_of_item(item: object) -> str:
    if isinstance(item, Wire):
        kind = getattr(item, "type", None)
    elif isinstance(item, dict):
        kind = item.get("type")
        if kind is None:
            kind = "item_reference" if "id" in item and "role" not in item else "message"
    else:
        return "<message>"
    return f"<{kind}>" if kind in _KINDS else "<other>"


_KINDS = ("message", "function_call", "function_call_output", "reasoning", "item_reference")

Item = Annotated[
    Annotated[SentMessage, Tag("<message>")]
    | Annotated[SentFunctionCall, Tag("<function_call>")]
    | Annotated[SentCallOutput, Tag("<function_call_output>")]
    | Annotated[SentReasoning, Tag("<reasoning>")]
    | Annotated[SentReference, Tag("<item_reference>")]
    | Annotated[SentOther, Tag("<other>")],
    Discriminator(_kind_of_item),
]


def _form_of_input(given: object) -> str:
    return "<items>" if isinstance(given, list) else "<text>"


class SentTool(FunctionDefinition):
    """A tool: a function, a namespace of functions in `tools`, or one that the provider runs, which has no name."""

    type: str
    name: str = Field("", pattern=rf"^$|{FUNCTION_NAME}")
    tools: list[SentTool] | None = Field(None, max_length=MAX_TOOLS)


class SentChoice(Wire):
    """A `tool_choice` that is no word."""

    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[SentReferenceToTool] | None = Field(None, min_length=1)


class SentReferenceToTool(Wire):
    """A tool by its name."""

    type: str
    name: str = ""
    namespace: str | None = None


class TextFormat(Wire):
    """The form that the text of the answer must have. A schema is enforced whether `strict` or not."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextOptions(Wire):
    """How the text of the answer is to be."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Wire):
    """How the model is to think, and in which form its thinking is told."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """An older name of `summary`."""


class ResponsesRequest(SamplingFields):
    """The body of POST /v1/responses. `None` is the same as not sent."""

    input: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[list[Item], Tag("<items>"), Field(max_length=MAX_ITEMS)],
        Discriminator(_form_of_input),
    ]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    tools: list[SentTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[SentChoice, Tag("<named>")],
            Discriminator(form_of_choice),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    include: list[str] | None = None
    max_output_tokens: MaxTokens | None = None
    top_logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, Annotated[str, Field(max_length=512)]] | None = Field(None, max_length=16)
