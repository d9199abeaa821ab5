"""A turn that does not change any more, as one piece of HTML: a page of two hundred of them stays fluid.

Only what is written here becomes a tag: all that somebody said goes through `html.escape` or the Markdown renderer.
Its buttons say what they do in `data-turn-do`; `ChatTurns` hears of them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Collection

from mlx_manager.ir import Role
from mlx_manager.ui.attachments import SHOWN_IMAGES, Attachment
from mlx_manager.ui.conversation import CallState, Round, ToolUse, Turn, TurnState
from mlx_manager.ui.markdown import render_reply
from mlx_manager.ui.words import render_duration, render_rate

CALL_WORDS = {
    CallState.WRITTEN: "being written",
    CallState.ASKED: "waits for you",
    CallState.RUNNING: "runs",
    CallState.DONE: "done",
    CallState.FAILED: "failed",
    CallState.REFUSED: "not allowed",
}
CALL_TONES = {CallState.ASKED: "warn", CallState.DONE: "good", CallState.FAILED: "bad", CallState.REFUSED: "bad"}
_MOST_SHOWN_CHARS = 20_000


def render_turn(turn: Turn, conversation_id: str, *, opened: Collection[str] = ()) -> str:
    """All of a turn. `opened` names the panels that are not folded, as `panel_name` does."""
    if turn.role is Role.USER:
        said = f'<div class="asked-words">{html.escape(turn.said)}</div>'
        head, buttons = "You", _button(turn, "edit", "edit", "Edit, as a new branch")
    else:
        said = "".join(_round(one, number, opened) for number, one in enumerate(turn.rounds))
        head = html.escape(turn.model or "")
        buttons = _copy(turn) + _button(turn, "again", "refresh", "Ask again")
    return (
        f'<div class="soft small strong">{head}</div>{_attachments(turn, conversation_id)}{said}{_problem(turn)}'
        f'<div class="row-line turn-foot">{_branches(turn)}{buttons}'
        f'<span class="soft small num end">{html.escape(describe_reply(turn))}</span></div>'
    )


def panel_name(round_number: int, call_number: int | None = None) -> str:
    """Of what a model thought in a round, or of one of its calls."""
    return f"{round_number}" if call_number is None else f"{round_number}.{call_number}"


def describe_reply(turn: Turn) -> str:
    """Who answered, and what it took."""
    figures = turn.figures
    parts = ["stopped"] if turn.state is TurnState.STOPPED else []
    if turn.answered_by is not None:
        instead = f" instead of another ({turn.fallback_reason})" if turn.fallback_reason is not None else ""
        parts.append(f"by {turn.answered_by}{instead}")
    if figures.tokens_per_s is not None:
        parts.append(f"{render_rate(figures.tokens_per_s)} tokens/s")
    if figures.ttft_s is not None:
        parts.append(f"first after {figures.ttft_s:.2f} s")
    if figures.num_prompt_tokens is not None:
        parts.append(f"{figures.num_prompt_tokens} prompt, {figures.num_cached_tokens} cached")
    if figures.num_completion_tokens is not None:
        parts.append(f"{figures.num_completion_tokens} written")
    return " · ".join(parts)


def describe_thinking(shown: Round) -> str:
    """The title of what a model thought."""
    return f"Thought for {render_duration(shown.thinking_s)}" if shown.thinking_s is not None else "Thinking"


def describe_call(use: ToolUse) -> str:
    """How far a call is."""
    took = f" in {render_duration(use.duration_s)}" if use.duration_s is not None else ""
    return CALL_WORDS[use.state] + took


def render_code(words: str) -> str:
    """Arguments and results, as text."""
    shown = words if len(words) <= _MOST_SHOWN_CHARS else words[:_MOST_SHOWN_CHARS] + "\n… cut off here."
    return f'<pre tabindex="0" class="tool-text">{html.escape(shown)}</pre>'


def render_arguments(arguments: str) -> str:
    """The arguments of a call, each on its line."""
    try:
        return render_code(json.dumps(json.loads(arguments), ensure_ascii=False, indent=2))
    except (ValueError, RecursionError):
        return render_code(arguments)


def _round(shown: Round, number: int, opened: Collection[str]) -> str:
    parts = []
    if shown.reasoning:
        thoughts = f'<div class="thoughts">{html.escape(shown.reasoning)}</div>'
        title = f"{_icon('psychology')}<span>{describe_thinking(shown)}</span>"
        parts.append(_panel("thinking", title, thoughts, is_open=panel_name(number) in opened))
    if shown.text:
        parts.append(f'<div class="prose">{render_reply(shown.text)}</div>')
    for index, use in enumerate(shown.calls):
        parts.append(_call(use, is_open=panel_name(number, index) in opened))
    return "".join(parts)


def _call(use: ToolUse, *, is_open: bool) -> str:
    server = f'<span class="soft small">of {html.escape(use.server)}</span>' if use.server else ""
    title = (
        f'{_icon("build")}<span class="strong clip">{html.escape(use.name)}</span>{server}'
        f'<span class="badge end {CALL_TONES.get(use.state, "")}">{describe_call(use)}</span>'
    )
    result = f'<span class="soft small">Result</span>{render_code(use.result)}' if use.result else ""
    body = f'<div><span class="soft small">Arguments</span>{render_arguments(use.arguments)}{result}</div>'
    return _panel("tool-call", title, body, is_open=is_open)


def _panel(classes: str, title: str, body: str, *, is_open: bool) -> str:
    return f'<details class="{classes}"{" open" if is_open else ""}><summary>{title}</summary>{body}</details>'


def _attachments(turn: Turn, conversation_id: str) -> str:
    if not turn.attachments:
        return ""
    return f'<div class="row-line">{"".join(_attachment(file, conversation_id) for file in turn.attachments)}</div>'


def _attachment(file: Attachment, conversation_id: str) -> str:
    name = html.escape(file.name)
    if file.media_type not in SHOWN_IMAGES:
        return f'<span class="badge">{name}</span>'
    source = f"/chat/files/{conversation_id}/{file.digest}"
    return f'<img class="attached" loading="lazy" src="{source}" alt="Attached: {name}">'


def _problem(turn: Turn) -> str:
    if turn.error is None:
        return ""
    return (
        f'<div class="note bad" role="alert">{_icon("error")}<span class="grow">{html.escape(turn.error)}</span></div>'
    )


def _branches(turn: Turn) -> str:
    num = len(turn.siblings)
    if num < 2:
        return ""
    return (
        _button(turn, "before", "chevron_left", "Branch before")
        + f'<span class="soft small num">{turn.siblings.index(turn) + 1}/{num}</span>'
        + _button(turn, "after", "chevron_right", "Branch after")
    )


def _copy(turn: Turn) -> str:
    return (
        f'<button type="button" class="turn-button" data-copy-text="{html.escape(turn.text)}" '
        f'aria-label="Copy the reply" title="Copy the reply">{_icon("content_copy")}</button>'
    )


def _button(turn: Turn, action: str, icon: str, name: str) -> str:
    return (
        f'<button type="button" class="turn-button" data-turn-do="{action}" data-turn="{turn.number}" '
        f'aria-label="{name}" title="{name}">{_icon(icon)}</button>'
    )


def _icon(name: str) -> str:
    return f'<i class="q-icon notranslate material-icons" aria-hidden="true">{name}</i>'
