"""What the hand-written pages mention is there: commands, targets, routes, parameters, links."""

import configparser
import re
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from mlx_manager.app import create_app
from mlx_manager.catalog.settings import load_settings
from mlx_manager.cli.main import app as command_line
from mlx_manager.hub.starter import STARTER_NAME
from mlx_manager.protocols.openai import PARAMETERS
from mlx_manager.protocols.openai.responses import RESPONSE_PARAMETERS
from mlx_manager.protocols.parameters import Support
from tools.docs import REPOSITORY

PAGES = sorted(
    path
    for path in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("benchmarks/*.md"))
    if path.is_file()
)
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def page_id(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_to_files_resolve(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    # a command stands alone in backticks, or begins a line of a code block
    named = set(re.findall(r"(?:^|`)make (?:[A-Z]+=\S+ )?([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist(page: Path) -> None:
    root = typer.main.get_command(command_line)
    assert isinstance(root, TyperGroup)
    named = set(
        re.findall(r"(?:^\.venv/bin/|`)mlx-manager ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert named - set(root.commands) == set()


def test_the_readme_names_every_route_and_no_other() -> None:
    paths = create_app(load_settings({}, {"home": REPOSITORY / "no-such-home"})).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    named = set(re.findall(r"`((?:GET|POST|PATCH|DELETE) /[^`]+)`", README))
    assert named == routes


def test_the_readme_names_served_parameters() -> None:
    rows = (*PARAMETERS, *RESPONSE_PARAMETERS.values())
    served = {row.name for row in rows if row.support is Support.SERVED}
    table = README[README.index("## The API") : README.index("## Tools and thinking")]
    named = {name for name in re.findall(r"`([a-z_]+)`", table) if "_" in name or name in ("n", "stop", "seed")}
    assert {"logit_bias", "min_p", "stop", "n"} <= named
    assert named - served == set()


def test_the_readme_asks_the_starter_model() -> None:
    models = re.findall(r'"?model"?[:=] ?"([^"]+)"', README)
    assert len(models) == 3
    assert set(models) == {STARTER_NAME}


def test_the_license_is_the_one_declared() -> None:
    assert (REPOSITORY / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_tests_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8"))
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (REPOSITORY / file).read_text()]
    assert missing == []


def test_the_drawn_layers_are_those_that_are_checked() -> None:
    contract = configparser.ConfigParser()
    contract.read(REPOSITORY / ".importlinter", encoding="utf-8")
    checked = contract["importlinter:contract:layers"]["layers"].split("\n")[1:]
    page = (REPOSITORY / "docs" / "structure.md").read_text(encoding="utf-8")
    drawing = page[page.index("## Which way imports point") :].split("```")[1]
    assert [line.split("  ")[0] for line in drawing.strip().splitlines()] == checked
