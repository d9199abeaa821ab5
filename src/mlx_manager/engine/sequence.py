"""One sequence: the tokens of one choice of one request, and where its keys and values are. No tensors here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.drafts import RowDrafts
from mlx_manager.ir import Priority

_LEAST_TEMPERATURE = 1e-6
"""Below it the likeliest token is chosen: nothing else has a weight then, and dividing by less leaves float32."""


class Status(Enum):
    """Where a sequence stands. FORKING: waits for its leader's prompt to be prefilled."""

    WAITING = "waiting"
    FORKING = "forking"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose this sequence's tokens, every default filled in. Ranges are the HTTP faces' business."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    num_top_logprobs: int | None = None
    """None: no log-probabilities; 0: of the chosen token only."""

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always chosen."""
        return self.temperature < _LEAST_TEMPERATURE

    @property
    def has_penalties(self) -> bool:
        """Whether the tokens so far change the logits."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(eq=False, kw_only=True)
class Sequence:
    """One running or waiting row. Written by the scheduler, except where a field says otherwise."""

    seq_id: int
    request_id: str
    choice: int
    token_ids: list[int]
    """Prompt and output, as far as the host knows them."""
    inputs: object | None = None
    """What stands in the prompt besides tokens, for the runner alone; None where there is nothing."""
    prefix_ids: list[int] = field(default_factory=list)
    """`token_ids` as the prefix cache knows them: the same list, but where there are `inputs`, see `content_id`, and
    where the cache is not shared by all, see `salted`."""
    num_prompt_tokens: int
    max_output_tokens: int
    eos_token_ids: frozenset[int]
    params: SamplingParams
    is_forcible: bool = False
    """Whether output tokens may be forced."""
    forced: tuple[int, ...] = ()
    """Output tokens from index `forced_from` on, whatever the model says. Set by the engine."""
    forced_from: int = 0
    priority: Priority = Priority.NORMAL
    arrival_s: float = 0.0
    status: Status = Status.WAITING
    block_table: list[int] = field(default_factory=list)
    """Physical block of each logical block, logical order; the first `num_holes` are `HOLE`."""
    num_holes: int = 0
    """Leading blocks that were given back, because every layer's window has passed them."""
    num_passed_blocks: int = 0
    """Leading blocks that windows have passed where other layers still read them (see `residency`)."""
    block_keys: list[bytes] = field(default_factory=list)
    """Prefix keys of the full blocks of `token_ids`, as far as they were needed."""
    num_entered_blocks: int = 0
    """Leading blocks that have been entered in the prefix index."""
    restoring_to: int = 0
    """Leading blocks that are to come from the store before anything more is computed; 0: no more are."""
    num_computed_tokens: int = 0
    """Leading positions whose keys and values are written, or will be by a step already launched."""
    num_sampling: int = 0
    """Output tokens of launched steps that the host has not read yet: 0 or 1 between steps, 2 while one is launched."""
    source_row: int | None = None
    """Row of the last launched step's samples that holds the newest token while the host does not know it."""
    has_started: bool = False
    """Whether the sequence was admitted at some time; a preempted one waits again."""
    num_cached_tokens: int = 0
    """Prompt tokens found in the prefix cache when the sequence was first admitted."""
    num_found_blocks: int = 0
    """Leading full blocks that the prefix cache held at the last look, with or without a state to go on from."""
    pending_checkpoints: list[tuple[int, int]] = field(default_factory=list)
    """(blocks, checkpoint): copies of the state behind that many full blocks, made by steps already launched, whose
    tokens the host does not know all yet."""
    drafts: RowDrafts | None = None
    """Who guesses its next tokens; None where nothing is guessed for it."""
    forks: list[Sequence] = field(default_factory=list)
    """Sequences of the same prompt that start from this one's blocks once the prompt is prefilled."""

    def __post_init__(self) -> None:
        if self.inputs is None and not self.prefix_ids:
            self.prefix_ids = self.token_ids
        elif len(self.prefix_ids) != len(self.token_ids):
            raise ValueError("a sequence with inputs, or with prefix ids, needs one of those for each of its tokens")

    def append(self, token_id: int) -> None:
        """One more token is known."""
        self.token_ids.append(token_id)
        if self.prefix_ids is not self.token_ids:
            self.prefix_ids.append(token_id)

    @property
    def num_tokens(self) -> int:
        """All tokens, known to the host or still on the device."""
        return len(self.token_ids) + self.num_sampling

    @property
    def forced_token(self) -> int | None:
        """What the next output token has to be; None where the model chooses it."""
        index = self.num_output_tokens - self.forced_from
        return self.forced[index] if 0 <= index < len(self.forced) else None

    @property
    def num_output_tokens(self) -> int:
        """Generated tokens, known to the host or still on the device."""
        return self.num_tokens - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens whose keys and values are still to be computed: 1 while decoding."""
        return self.num_tokens - self.num_computed_tokens

    @property
    def is_prefilling(self) -> bool:
        """Whether tokens before the last are still to be computed: a new prompt, or a resumed sequence."""
        return self.num_uncomputed_tokens > 1

    @property
    def wants_more(self) -> bool:
        """Whether another token may be sampled, as far as the length limit goes."""
        return self.num_output_tokens < self.max_output_tokens

    @property
    def is_at_length_limit(self) -> bool:
        """Whether the host knows all the tokens that the length limit allows."""
        return len(self.token_ids) - self.num_prompt_tokens >= self.max_output_tokens

    def prefix_ids_of_block(self, index: int) -> list[int]:
        """The known prefix ids of logical block `index`."""
        return self.prefix_ids[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]
