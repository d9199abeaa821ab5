"""Logging in, registering, and making the first account: plain pages without NiceGUI, whose forms the API answers."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from mlx_manager.ui.paths import LOGIN, REGISTER

if TYPE_CHECKING:
    from mlx_manager.ui.console import Console

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


async def login_page(request: Request) -> HTMLResponse | RedirectResponse:
    """The form that fits: who has a session already goes on to where they wanted."""
    console: Console = request.state.console
    following = _safe_path(request.query_params.get("next", "/"))
    if await console.find_viewer(request) is not None:
        return RedirectResponse(following, 303)
    if console.people.is_empty:
        form = _first_form() if console.door.is_loopback else _FIRST_ELSEWHERE
    elif request.url.path == REGISTER:
        form = _form("Ask for an account", _REGISTER_WORDS, "register", "Register", "new-password")
        form += f'<p class="soft">You have one? <a href="{LOGIN}">Log in</a></p>'
    else:
        form = _form("Log in", "", "login", "Log in", "current-password")
        form += f'<p class="soft">No account yet? <a href="{REGISTER}">Ask for one</a></p>'
    theme = request.cookies.get("mlx_manager_theme", "auto")
    page = _PAGE.format(form=form, following=html.escape(following, quote=True), theme=html.escape(theme, quote=True))
    return HTMLResponse(page, headers=_HEADERS)


def _safe_path(following: str) -> str:
    """Where to go afterwards: a path of this server, never another one."""
    is_own = following.startswith("/") and not following.startswith(("//", "/\\")) and following.isprintable()
    return following if is_own else "/"


def _first_form() -> str:
    return _form("Welcome", _FIRST_WORDS, "register", "Create the account", "new-password")


def _form(title: str, words: str, action: str, verb: str, password_kind: str) -> str:
    hint = '<p class="soft small">At least 8 characters.</p>' if password_kind == "new-password" else ""
    return f"""<h1>{title}</h1><p class="soft">{words}</p>
<form id="form" data-action="{action}">
<label for="name">Name</label>
<input id="name" name="name" autocomplete="username" required autofocus autocapitalize="off">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="{password_kind}" required>{hint}
<p id="said" role="alert" class="note bad" hidden></p>
<button type="submit">{verb}</button></form>"""


_FIRST_WORDS = "There is no account on this server yet. The first one is the admin's."
_REGISTER_WORDS = "An admin has to approve it before it can be used."
_FIRST_ELSEWHERE = """<h1>Welcome</h1><p>There is no account on this server yet. As other machines can reach it,
the first one is made on the server itself:</p><pre tabindex="0">mlx-manager user create NAME</pre>
<p class="soft">Then come back and log in.</p>"""
_PAGE = """<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
<title>MLX Manager</title><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="/_console/console.css">
<link rel="stylesheet" href="/_console/login.css"><script src="/_console/login.js" defer></script></head>
<body data-next="{following}"><main class="login" data-page><p class="brand">
<span class="brand-mark" aria-hidden="true"><i></i><i></i><i></i><i></i></span><span>MLX Manager</span></p>
{form}</main></body></html>"""
