"""mlx-manager doctor: what this machine has, what is wrong, and what to do about it. The checks are in `checks`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.cli.flags import with_settings
from mlx_manager.cli.models import print_json

_MARKS = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}


@with_settings("home", "host", "port")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: object,
) -> None:
    """Check this machine and this installation; exit code 1 when something is broken."""
    # psutil, the hub and the pool: help needs none of them
    from mlx_manager.cli.checks import run_checks  # noqa: PLC0415

    findings = run_checks(os.environ, flags)
    if as_json:
        print_json(findings)
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{_MARKS[finding.state]}{finding.name.ljust(width)}  {finding.text}")
            if finding.fix:
                print(f"{' ' * (10 + width)}→ {finding.fix}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
