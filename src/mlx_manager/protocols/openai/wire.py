"""The wire schemas of requests in the OpenAI dialect: names, types and bounds of the parameters that are served.

What they mean together is `server`'s; what becomes of every other parameter is in `parameters`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mlx_manager.protocols.model_name import NamesModel
from mlx_manager.protocols.wire import INT64, Whole, Wire

MAX_CHOICES = 16
MAX_PROMPTS = 128
MAX_STOPS = 4
MAX_TOOLS = 512
MAX_TOP_LOGPROBS = 20
MAX_COMPLETION_LOGPROBS = 5


MaxTokens = Annotated[Whole, Field(ge=1, lt=INT64)]


class ImageUrl(Wire):
    """Where a picture is: a data URL that holds it, or an https address."""

    url: str
    detail: str | None = None


class SentFile(Wire):
    """A file: in the request as `file_data`, or among the provider's own."""

    file_data: str | None = None
    filename: str | None = None


def _form_of_url(sent: object) -> str:
    return "<text>" if isinstance(sent, str) else "<object>"


class VideoUrl(Wire):
    """Where the file of a video is: a data URL that holds it, or an https address."""

    url: str


def _form_of_video(sent: object) -> str:
    return "<frames>" if isinstance(sent, list) else "<text>"


class ContentPart(Wire):
    """One part of a message's content. Text, pictures, videos and files are served; the others are refused by type."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: (
        Annotated[Annotated[str, Tag("<text>")] | Annotated[ImageUrl, Tag("<object>")], Discriminator(_form_of_url)]
        | None
    ) = None
    video_url: (
        Annotated[Annotated[str, Tag("<text>")] | Annotated[VideoUrl, Tag("<object>")], Discriminator(_form_of_url)]
        | None
    ) = None
    video: (
        Annotated[Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<frames>")], Discriminator(_form_of_video)]
        | None
    ) = None
    """A file, or frames in order, by their URLs."""
    file: SentFile | None = None


def _form_of(content: object) -> str:
    if isinstance(content, list):
        return "<parts>"
    return "<null>" if content is None else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[ContentPart], Tag("<parts>")] | Annotated[None, Tag("<null>")],
    Discriminator(_form_of),
]


class SentFunction(Wire):
    """The function of a tool call that comes back. `arguments` is JSON text."""

    name: str = Field(min_length=1)
    arguments: str = ""


class SentToolCall(Wire):
    """A tool call that the assistant made earlier, as it comes back."""

    id: str = Field(min_length=1)
    type: Literal["function"] = "function"
    function: SentFunction


class ChatMessage(Wire):
    """One turn as it is sent."""

    role: str
    content: Content = None
    name: str | None = None
    tool_calls: list[SentToolCall] | None = None
    tool_call_id: str | None = None
    function_call: SentFunction | None = None
    """The form before `tool_calls`."""
    reasoning_content: str | None = None
    reasoning: str | None = None
    """Another name for `reasoning_content`."""


FUNCTION_NAME = r"^[a-zA-Z0-9_.-]{1,128}$"


class FunctionDefinition(Wire):
    """A function that may be called."""

    name: str = Field(pattern=FUNCTION_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(Wire):
    """An entry of `tools`."""

    type: str
    function: FunctionDefinition | None = None


class FunctionName(Wire):
    """A function by its name."""

    name: str


class ToolReference(Wire):
    """A tool by its name."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Wire):
    """Those of the tools that may be called in this answer."""

    mode: Literal["auto", "required"]
    tools: list[ToolReference] = Field(min_length=1)


class NamedToolChoice(Wire):
    """A `tool_choice` that is no word."""

    type: Literal["function", "allowed_tools"]
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def form_of_choice(sent: object) -> str:
    return "<word>" if isinstance(sent, str) else "<named>"


class StreamOptions(Wire):
    """How a stream is to be sent."""

    include_usage: bool | None = None


class JsonSchemaFormat(Wire):
    """`response_format.json_schema`. It is enforced whether `strict` or not."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Wire):
    """The form that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class SamplingFields(NamesModel):
    """How to choose tokens, as every generating endpoint takes it. `None` is the same as not sent."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Whole | None = Field(None, ge=-1, lt=INT64)
    """-1 and 0 both keep all tokens."""
    min_p: float | None = Field(None, ge=0, le=1)
    seed: Whole | None = Field(None, ge=-INT64, lt=INT64)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: (
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    priority: Literal["high", "normal", "low"] | None = None
    stream: bool | None = None


class _Request(SamplingFields):
    """What chat and completions take. `None` is the same as not sent."""

    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    response_format: ResponseFormat | None = None
    guided_json: (
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[dict[str, Any], Tag("<schema>")],
            Discriminator(lambda sent: "<text>" if isinstance(sent, str) else "<schema>"),
        ]
        | None
    ) = None
    guided_regex: str | None = Field(None, min_length=1)
    guided_grammar: str | None = Field(None, min_length=1)
    """In Lark's form."""
    n: Whole | None = Field(None, ge=1, le=MAX_CHOICES)
    stream_options: StreamOptions | None = None


class ChatRequest(_Request):
    """The body of POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[ToolDefinition] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[NamedToolChoice, Tag("<named>")],
            Discriminator(form_of_choice),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = Field(None, max_length=MAX_TOOLS)
    """The form before `tools`."""
    function_call: (
        Annotated[
            Annotated[Literal["none", "auto"], Tag("<word>")] | Annotated[FunctionName, Tag("<named>")],
            Discriminator(form_of_choice),
        ]
        | None
    ) = None
    reasoning_effort: Effort | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


TokenId = Annotated[Whole, Field(ge=0, lt=2**31)]


def _kind_of_prompt(prompt: object) -> str:
    if not isinstance(prompt, list):
        return "<text>"
    first = prompt[0] if prompt else 0
    if isinstance(first, str):
        return "<texts>"
    return "<token lists>" if isinstance(first, list) else "<tokens>"


class CompletionRequest(_Request):
    """The body of POST /v1/completions."""

    prompt: Annotated[
        Annotated[str, Tag("<text>"), Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Tag("<texts>"), Field(max_length=MAX_PROMPTS)]
        | Annotated[list[TokenId], Tag("<tokens>"), Field(min_length=1)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1)]], Tag("<token lists>"), Field(max_length=MAX_PROMPTS)
        ],
        Discriminator(_kind_of_prompt),
    ]
    logprobs: Whole | None = Field(None, ge=0, le=MAX_COMPLETION_LOGPROBS)
    echo: bool | None = None
