"""Markdown of models and of model cards as HTML that is safe by the way it is made: only our renderer writes tags.

HTML in the text is shown as text in replies and left out of cards; links lead to http, https and mail only; pictures
of elsewhere are not loaded, they would tell who reads.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

_MOST_CHARS = 200_000
_MOST_HIGHLIGHTED_CHARS = 20_000
_SAFE_LINK = re.compile(r"(https?://|mailto:|#)", re.IGNORECASE)


def render_reply(text: str) -> str:
    """A model's reply. HTML in it is shown as it was written."""
    return str(_parser(is_card=False).render(_cut(text)))


def render_card(text: str) -> str:
    """A model card, which is Markdown with HTML for its looks: that is left out."""
    return str(_parser(is_card=True).render(_cut(text)))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS] + "\n\n… cut off here."


@cache
def _parser(*, is_card: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": is_card, "breaks": not is_card}).enable(["table", "strikethrough"])
    parser.validateLink = lambda url: _SAFE_LINK.match(url.strip()) is not None  # type: ignore[method-assign]
    rules = {
        "fence": _code,
        "code_block": _code,
        "image": _image,
        "html_block": _nothing,
        "html_inline": _nothing,
        "link_open": _link,
        "heading_open": _heading,
        "heading_close": _heading,
        "table_open": _table_open,
        "table_close": _table_close,
    }
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    return parser


def _code(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    language = (token.info.split() or [""])[0][:40]
    return (
        f'<div class="code"><div class="code-head"><span>{html.escape(language)}</span>'
        '<button type="button" data-copy-code aria-label="Copy the code">Copy</button></div>'
        f'<pre tabindex="0"><code>{_highlight(token.content, language)}</code></pre></div>'
    )


def _highlight(code: str, language: str) -> str:
    if not language or len(code) > _MOST_HIGHLIGHTED_CHARS:
        return html.escape(code)
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return html.escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="t-")))


def _image(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    source = str(token.attrGet("src") or "")
    words = html.escape(token.content or "picture")
    if not source.lower().startswith(("http://", "https://")):
        return f"[{words}]"
    return f'<a href="{html.escape(source)}" target="_blank" rel="noopener noreferrer nofollow">[{words}]</a>'


def _link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    target = html.escape(str(tokens[index].attrGet("href") or ""))
    return f'<a href="{target}" target="_blank" rel="noopener noreferrer nofollow">'


def _heading(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """Two levels down: the page has its own."""
    token = tokens[index]
    level = min(int(token.tag[1]) + 2, 6)
    return f"<{'/' if token.nesting < 0 else ''}h{level}>"


def _table_open(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return '<div class="table" tabindex="0"><table>'


def _table_close(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return "</table></div>"


def _nothing(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return ""
