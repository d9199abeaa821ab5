"""Turns that have ended are HTML that we write: whatever was said in them, no tag of anybody else comes out."""

from __future__ import annotations

from mlx_manager.ir import Role
from mlx_manager.ui.attachments import Attachment
from mlx_manager.ui.conversation import CallState, Round, ToolUse, Turn, TurnState
from mlx_manager.ui.turn_html import render_turn
from tests.ui.test_markdown import HOSTILE, Reader

OURS = {"details", "summary", "i", "img"}


def bad_parts(rendered: str) -> list[str]:
    reader = Reader()
    reader.feed(rendered)
    return [part for part in reader.bad if part not in OURS]


def test_hostile_turns_come_out_harmless() -> None:
    for evil in (*HOSTILE, '"><script>alert(1)</script>', "' onerror=alert(1) '"):
        files = (Attachment(evil, "image/png", b"x"), Attachment(evil, "text/plain", b"x"))
        asked = Turn(1, Role.USER, evil, files)
        use = ToolUse("c", evil, evil, evil, CallState.FAILED, evil)
        reply = Turn(
            2,
            Role.ASSISTANT,
            rounds=[Round(reasoning=evil, text=evil, calls=[use])],
            model=evil,
            answered_by=evil,
            fallback_reason=evil,
            state=TurnState.FAILED,
            error=evil,
            parent=asked,
        )
        for turn in (asked, reply):
            rendered = render_turn(turn, "c", opened=["0", "0.0"])
            assert bad_parts(rendered) == []
            assert "<script" not in rendered


def test_what_was_said_stays_readable() -> None:
    use = ToolUse("c", "add", "sums", '{"a": 1}', CallState.DONE, "<b>2</b>", 0.5)
    turn = Turn(2, Role.ASSISTANT, rounds=[Round("Hm", "", 1.5, "", [use]), Round(text="**Two**")], model="m")
    rendered = render_turn(turn, "c", opened=["0.0"])
    assert "Thought for 1.5 s" in rendered
    assert '<details class="thinking">' in rendered
    assert '<details class="tool-call" open>' in rendered
    assert "&lt;b&gt;2&lt;/b&gt;" in rendered
    assert "<strong>Two</strong>" in rendered
