"""One request in a dialog: who asked what, how its time was spent, and what the prefix cache had of it."""

from __future__ import annotations

import asyncio

from mlx_manager.errors import Unavailable
from mlx_manager.ir import PrefixReason, RequestRecord
from mlx_manager.observability.spans import Span
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import box, button, copy_button, dialog, facts, note, text
from mlx_manager.ui.found_requests import outcome_of, render_cost
from mlx_manager.ui.waterfall import record_waterfall, span_waterfall

_WHY = {
    PrefixReason.COMPLETE: "All of it was there but the last token, which is always computed.",
    PrefixReason.CONTINUED: "The closest earlier conversation ended there; the rest of the prompt is new.",
    PrefixReason.UNSEEN: "No earlier prompt that is remembered begins like this one.",
    PrefixReason.TEXT: "There the text differs from the closest earlier prompt: what changes from one request to the "
    "next, such as a date, belongs behind what stays.",
    PrefixReason.ANSWER: "There an earlier answer was not sent back as it was generated: send its text, reasoning and "
    "calls back unchanged.",
    PrefixReason.TEMPLATE: "It differs before the first message, in what the chat template writes there: a date, or "
    "other tools.",
    PrefixReason.EVICTED: "An earlier conversation agrees further, but its blocks had to make room: raise kv_budget.",
    PrefixReason.NO_CHECKPOINT: "The blocks are there, but no copy of the recurrent layers' state to go on from.",
    PrefixReason.UNHASHED_TAIL: "The agreement ends inside a block, and that part of a block could not be copied.",
    PrefixReason.PENDING: "An earlier prompt that agrees further was still being computed.",
    PrefixReason.FORGOTTEN: "What was found belongs to a conversation too old to be remembered: nobody knows where it "
    "differs.",
    PrefixReason.UNCACHED: "The model is served without a prefix cache; Pool says why.",
}

_ONLY_TEMPLATE = (
    "Only what the chat template writes first is shared: no earlier prompt that is remembered goes on alike."
)


async def show_request(console: Console, record: RequestRecord) -> None:
    """Opens the dialog."""
    problem = None
    spans: list[Span] = []
    try:
        spans = await asyncio.to_thread(console.spans.trace, record.trace_id) if record.trace_id else []
    except Unavailable as error:
        problem = error.message
    with dialog("One request", is_wide=True) as opened:
        facts(_facts(record))
        text("How its time was spent", tag="h3")
        own = spans_of(record, spans)
        if own:
            span_waterfall(own)
        else:
            record_waterfall(record)
            text(problem or "Its trace is not kept, or is gone by its age; this is from the audit.", "soft small", "p")
        if record.prefix_reason is not None:
            text("What the prefix cache had", tag="h3")
            num_prompt = record.num_prompt_tokens or 0
            found = f"{record.num_cached_tokens or 0:,} of {num_prompt:,} tokens were there."
            agreed = record.num_agreed_tokens
            closest = "" if agreed is None else f" The closest earlier conversation shares the first {agreed:,}."
            text(found + closest, "", "p")
            note(why_no_more(record), "info")
        with box("row-line"):
            text(record.request_id, "mono wrap-anywhere")
            copy_button(record.request_id, "Copy the id")
        with box("dialog-foot"):
            button("Close", opened.close)


def why_no_more(record: RequestRecord) -> str:
    """Why no more of a prompt was found, of a request whose prompt was looked up."""
    assert record.prefix_reason is not None
    is_begun = record.num_agreed_tokens or record.num_cached_tokens
    return _ONLY_TEMPLATE if record.prefix_reason is PrefixReason.UNSEEN and is_begun else _WHY[record.prefix_reason]


def spans_of(record: RequestRecord, spans: list[Span]) -> list[Span]:
    """Those of this request: clients may put many into one trace."""
    own = {span.span_id for span in spans if span.attributes.get("gen_ai.response.id") == record.answer_id is not None}
    if not own:
        own = {span.span_id for span in spans if span.attributes.get("mlx_manager.request_id") == record.request_id}
    # children begin after their parents, and spans come in the order of their starts
    for span in spans:
        if span.parent_id in own:
            own.add(span.span_id)
    return [span for span in spans if span.span_id in own]


def _facts(record: RequestRecord) -> list[tuple[str, str]]:
    words, _ = outcome_of(record)
    cost = render_cost(record.cost_usd)
    shown = [
        ("Path", record.path),
        ("Model", record.model or "not read"),
        ("Answered by", record.target or "nobody"),
        ("Its model", record.target_model or ""),
        ("Route", record.route or "none"),
        ("Fallback for", record.fallback_reason or ""),
        ("By", record.key or record.user or "anybody"),
        ("From", record.client_address or "this server"),
        ("Client", record.user_agent or ""),
        ("Status", f"{words} {record.error_code or ''}"),
        ("Priority", record.priority or ""),
        ("Backends asked", str(record.num_attempts)),
        ("Written", f"{record.num_completion_tokens or 0:,} tokens"),
        ("Cost", cost),
    ]
    return [(label, value) for label, value in shown if value]
