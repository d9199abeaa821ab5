"""Markdown of models is not trusted: whatever it holds, only our own tags come out."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.ui.markdown import render_card, render_reply

TAGS = {
    *("p", "h3", "h4", "h5", "h6", "a", "em", "strong", "s", "code", "pre", "div", "span", "button", "ul", "ol", "li"),
    *("blockquote", "hr", "br", "table", "thead", "tbody", "tr", "th", "td"),
}
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](\tjavascript:alert(1))",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "<javascript:alert(1)>",
    "![a](javascript:alert(1))",
    '[a](https://x.y "onclick=alert(1)")',
    '![a" onerror="alert(1)](https://x.y)',
    '```"><script>alert(1)</script>\nx\n```',
    "<svg/onload=alert(1)>",
    "|<b onclick=alert(1)>|\n|-|\n|<iframe src=//x>|",
)


class Reader(HTMLParser):
    """Collects tags, attributes and the targets of links."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.bad.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name == "href" and not re.match(r"https?://|mailto:|#", value or "", re.I)):
                self.bad.append(f"{tag} {name}={value}")


def bad_parts(rendered: str) -> list[str]:
    reader = Reader()
    reader.feed(rendered)
    return reader.bad


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_out_harmless(text: str) -> None:
    assert bad_parts(render_reply(text)) == []
    assert bad_parts(render_card(text)) == []


@given(st.lists(st.sampled_from([*HOSTILE, "\n\n", "* ", "`", "> ", "# ", "[", "](", ")", "<", '"']), max_size=8))
def test_mixtures_of_it_too(parts: list[str]) -> None:
    assert bad_parts(render_reply("".join(parts))) == []
    assert bad_parts(render_card("".join(parts))) == []


def test_what_a_reply_says_stays_readable() -> None:
    rendered = render_reply("# Title\n\n**bold** <b>\n\n```python\nx = '<b>'\n```\n\n|a|\n|-|\n|1|")
    assert "<h3>Title</h3>" in rendered
    assert "<strong>bold</strong> &lt;b&gt;" in rendered
    assert '<span class="t-n">x</span>' in rendered
    assert "<td>1</td>" in rendered


def test_a_card_loses_its_html() -> None:
    assert "align" not in render_card('<div align="center">\n\n# Model\n\n</div>')


def test_a_huge_text_is_cut() -> None:
    assert len(render_reply("|" * 3_000_000)) < 1_000_000
