"""What `mlx-manager doctor` looks at, in the page: this machine and this installation, and what to do about it."""

from __future__ import annotations

import asyncio
import os

from mlx_manager.observability.checks import Finding, check_machine
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import Tone, badge, box, button, text

_TONES: dict[str, Tone] = {"ok": "good", "warning": "warn", "problem": "bad"}


class DoctorView:
    """Looks when somebody asks: it starts a worker process to see what MLX finds, which takes some seconds."""

    def __init__(self, console: Console) -> None:
        self._home = console.home
        with box("row-line"):
            text("Doctor", "grow", "h2")
            self._run = button("Look", self._look, icon="troubleshoot")
        self._said = text("It checks this machine and this installation, within some seconds.", "soft small", "p")
        self._place = box("list").props('role="status" aria-label="What doctor found"')

    async def _look(self) -> None:
        self._run.disable()
        self._said.set_visibility(True)
        self._said.set_content("Looking …")
        findings = await asyncio.to_thread(check_machine, os.environ, self._home)
        if self._place.is_deleted:
            return
        self._run.enable()
        self._said.set_visibility(False)
        self._place.clear()
        with self._place:
            for finding in findings:
                _draw(finding)


def _draw(finding: Finding) -> None:
    with box("row-line"):
        badge(finding.state, _TONES[finding.state])
        text(finding.name, "strong")
        text(finding.text, "wrap-anywhere")
    if finding.fix:
        text(finding.fix, "soft small", "p")
