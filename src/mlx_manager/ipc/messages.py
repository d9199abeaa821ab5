"""Messages between the gateway and one worker: msgspec structs in msgpack, never pickle.

One DEALER socket pair per worker, on a Unix socket in a private folder: the gateway binds, the worker connects.
Life of a worker:  → Hello  ← Load  → LoadProgress*  → Loaded | LoadFailed
                   ← (Generate | Embed | Tokenize | Abort)*  → (StepDone | Embedded | Tokenized | RequestFailed)*
                   ← Stop
"""

from __future__ import annotations

import msgspec

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ErrorInfo
from mlx_manager.ir import (
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    GenerationRequest,
    Priority,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Vectors,
)


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load this model. A worker takes one `Load` in its life."""

    model: ModelEntry
    options: LoadOptions


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Answer this request; its events come in `StepDone` until its `Finished`, or one `RequestFailed`."""

    request: GenerationRequest


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Compute the vectors or scores of this request; answered by one `Embedded`, or one `RequestFailed`."""

    request: EmbeddingRequest | RerankRequest


class Tokenize(msgspec.Struct, frozen=True, tag="tokenize"):
    """Only tokenize, or detokenize; answered by one `Tokenized`, or one `RequestFailed`, before the next step."""

    request: TokenizeRequest | DetokenizeRequest


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Forget this request before the next step. An unknown id is ignored: it may just have finished."""

    request_id: str


class Trim(msgspec.Struct, frozen=True, tag="trim"):
    """Memory is short: give back what is kept for requests to come, the KV arena above all. Answered by `Trimmed`, once
    nothing is being answered any more."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End the process now."""


ToWorker = Load | Generate | Embed | Tokenize | Abort | Trim | Stop


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The worker's imports are done and it can take a `Load`."""

    pid: int
    device: str
    """What MLX calls its default device, for people: "Apple M4 Max (gpu)", "cpu"."""
    blas: str | None
    """The BLAS library preloaded on a CPU backend; None where none was."""
    versions: dict[str, str]
    recommended_bytes: int = 0
    """The working set that the device recommends: Metal's own figure, on a CPU the system's memory. 0: not known."""


class LoadProgress(msgspec.Struct, frozen=True, tag="load_progress"):
    """How far a load has come. `fraction` is 0 to 1 of the whole load."""

    stage: str
    fraction: float


class ServingReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a loaded model is served, for /v1/models, /health and `doctor`."""

    path: str
    """paged, batched or sequential."""
    reason: str
    """Why that path, in a sentence."""
    attention: str
    """The decode attention chosen: gather_mm, gathered_sdpa or by_shape, with what was measured."""
    dtype: str
    max_context: int
    weights_bytes: int
    kv_bytes_per_token: int
    kv_budget_bytes: int
    load_s: float
    kv_cache_bits: int = 0
    """Of an entry of the keys and values that are kept quantized; 0: they are kept as they are computed."""
    family: str = ""
    """Which family's way of prompting and reading the model is served in; "" for one that does not chat."""
    warning: str = ""
    """What is not known about the model, for the operator."""
    draft_model: str = ""
    """The model that guesses ahead for it, in the same worker; "" where there is none."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The model can answer."""

    report: ServingReport
    stats: EngineStats
    """The engine's books before its first step."""


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The model could not be loaded; the worker ends after this message."""

    error: ErrorInfo


class RequestEvents(msgspec.Struct, frozen=True, array_like=True):
    """What one step added to one request."""

    request_id: str
    events: tuple[Event, ...]


class RequestFailed(msgspec.Struct, frozen=True, tag="request_failed"):
    """This request is over with an error; no more events of it follow."""

    request_id: str
    error: ErrorInfo


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """The whole answer to an `Embed`."""

    request_id: str
    vectors: Vectors


class Tokenized(msgspec.Struct, frozen=True, tag="tokenized"):
    """The whole answer to a `Tokenize`."""

    request_id: str
    tokens: Tokens


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's books after a step. Blocks: free + cached + used = total."""

    num_running: int = 0
    num_waiting: int = 0
    num_blocks_total: int = 0
    num_blocks_free: int = 0
    num_blocks_cached: int = 0
    num_blocks_used: int = 0
    arena_bytes: int = 0
    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_restored_tokens: int = 0
    """Prompt tokens whose blocks came from the prefix cache on disk."""
    block_fetch_s: float | None = None
    """What fetching a block from disk takes, and computing its tokens; None while it is not known."""
    block_prefill_s: float | None = None
    num_generated_tokens: int = 0
    num_drafted_tokens: int = 0
    """Guesses at next tokens that were run, and those of them that came true."""
    num_accepted_drafts: int = 0
    num_model_drafted_tokens: int = 0
    """Those of both that were the draft model's; the others came from the text itself."""
    num_accepted_model_drafts: int = 0
    drafting_off: str = ""
    """Why guesses are not run now, in words; "" while they may be, and where none are asked for."""
    num_grammar_masks: int = 0
    """Tokens that a grammar was asked about, one for each row and step."""
    grammar_compute_s: float = 0.0
    """What their masks took to compute, most of it beside the forward pass."""
    grammar_wait_s: float = 0.0
    """What steps waited for masks after their forward pass: what grammars cost."""
    num_preemptions: int = 0
    num_finished_requests: int = 0
    num_aborted_requests: int = 0
    active_memory_bytes: int = 0
    peak_memory_bytes: int = 0
    cpu_s: float = 0.0
    """Processor time that the worker has taken, of all its threads."""


class BatchRow(msgspec.Struct, frozen=True, array_like=True):
    """One sequence that runs in the batch, or waits to."""

    request_id: str
    choice: int
    is_running: bool
    priority: Priority
    num_prompt_tokens: int
    num_cached_tokens: int
    """Of the prompt, found in the prefix cache."""
    num_computed_tokens: int
    """Of the prompt, the cached ones among them."""
    num_generated_tokens: int
    num_most_tokens: int
    """That it may generate."""


class StepDone(msgspec.Struct, frozen=True, tag="step_done"):
    """All that one engine step produced, for every request in it; also sent, empty, when the books change otherwise."""

    deltas: tuple[RequestEvents, ...]
    stats: EngineStats
    rows: tuple[BatchRow, ...] | None = None
    """The batch, for who watches; None in most steps: it is told about twice in a second."""


class Trimmed(msgspec.Struct, frozen=True, tag="trimmed"):
    """What could be given back is; the books afterwards."""

    stats: EngineStats


FromWorker = Hello | LoadProgress | Loaded | LoadFailed | StepDone | Embedded | Tokenized | RequestFailed | Trimmed

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """One message as msgpack."""
    return _encoder.encode(message)


def decode_to_worker(frame: bytes) -> ToWorker:
    """Read a message on the worker's side. Raises `msgspec.ValidationError` on anything else."""
    return _to_worker.decode(frame)


def decode_from_worker(frame: bytes) -> FromWorker:
    """Read a message on the gateway's side. Raises `msgspec.ValidationError` on anything else."""
    return _from_worker.decode(frame)
