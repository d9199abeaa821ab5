"""Writes the generated parts of docs/ from the code: commands, settings, routes, families and the module map.

`python tools/docs.py` writes them between their markers; `--check` only says which differ, and fails when one does.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from mlx_manager.app import create_app
from mlx_manager.backends.crossings import CROSSINGS, REFUSED
from mlx_manager.catalog import MODEL_SETTINGS, ProviderKind
from mlx_manager.catalog.settings import SETTINGS, Setting, load_settings
from mlx_manager.cli.main import app as command_line
from mlx_manager.models.families import FAMILIES
from mlx_manager.protocols.anthropic import COUNT_TOKENS_PARAMETERS, MESSAGES_PARAMETERS
from mlx_manager.protocols.openai import PARAMETERS, Endpoint
from mlx_manager.protocols.openai.responses import RESPONSE_PARAMETERS
from mlx_manager.protocols.parameters import Parameter

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "src" / "mlx_manager"
_ENVIRONMENT_ORDER = "Flags win over variables, variables over `config.toml`, that over the default."


@dataclass(frozen=True)
class Part:
    """One generated stretch of one page."""

    page: str
    name: str
    write: Callable[[], str]

    @property
    def path(self) -> Path:
        """The page, in docs/."""
        return REPOSITORY / "docs" / self.page

    def filled(self, page: str) -> str:
        """`page` with this part written anew. Raises `ValueError` when the page lacks the markers."""
        begin = f"<!-- generated: {self.name} (tools/docs.py) -->"
        end = f"<!-- end: {self.name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"docs/{self.page} has no part between {begin} and {end}")
        text = f"{begin}\n\n{self.write().strip()}\n\n{end}"
        return pattern.sub(lambda _: text, page)


def commands() -> str:
    """Every command with its usage, arguments and options, as the program itself declares them."""
    root = typer.main.get_command(command_line)
    if not isinstance(root, TyperGroup):
        raise TypeError("the program has no commands")
    return "\n\n".join(_command_sections(root, "mlx-manager"))


def settings_table() -> str:
    """The table that settings are read through."""
    rows = [
        "| setting | type | default | variable | what it does | a change in the console holds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in SETTINGS:
        kind = ", ".join(row.choices) if row.choices else row.type
        default = (
            "–" if row.default in (None, ()) else str(row.default).lower() if row.type == "flag" else str(row.default)
        )
        rows.append(f"| `{row.name}` | {kind} | {default} | `{row.env}` | {row.help} | {_holds(row)} |")
    return _ENVIRONMENT_ORDER + "\n\n" + "\n".join(rows)


def _holds(row: Setting) -> str:
    return row.takes_effect.value if row.is_changeable else "–"


def model_settings_table() -> str:
    """The table that settings of single models are read through."""
    rows = ["| setting | type | what it does | takes effect |", "| --- | --- | --- | --- |"]
    for row in MODEL_SETTINGS:
        kind = ", ".join(row.choices) if row.choices else row.type
        rows.append(f"| `{row.name}` | {kind} | {row.help} | {'with the next load' if row.needs_load else 'at once'} |")
    return "\n".join(rows)


def routes() -> str:
    """Every route of the app, with the first line of its function's docstring."""
    schema = create_app(load_settings({}, {"home": REPOSITORY / "no-such-home"})).openapi()
    rows = ["| method | path | |", "| --- | --- | --- |"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            rows.append(f"| {method.upper()} | `{path}` | {_first_line(operation.get('description'))} |")
    return "\n".join(rows)


def parameters() -> str:
    """What becomes of every request parameter that clients are known to send."""
    rows = ["| parameter | chat | completions | | |", "| --- | --- | --- | --- | --- |"]
    for row in PARAMETERS:
        endpoints = ("yes" if endpoint in row.endpoints else "–" for endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS))
        rows.append(f"| `{row.name}` | {' | '.join(endpoints)} | {row.support.value} | {_noted(row)} |")
    return "\n".join(rows)


def response_parameters() -> str:
    """What becomes of every parameter of /v1/responses."""
    rows = ["| parameter | | |", "| --- | --- | --- |"]
    rows += [f"| `{row.name}` | {row.support.value} | {_noted(row)} |" for row in RESPONSE_PARAMETERS.values()]
    return "\n".join(rows)


def families() -> str:
    """The table that models are prompted and read by."""
    rows = [
        "| family | model types | by template | calls | reasoning | also ends answers | thinking switch | picture |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family in FAMILIES:
        calls = "harmony" if family.style else family.tools.name if family.tools else "none shown"
        reasoning = [f"`{each.begin}` … `{each.end}`" for each in family.reasoning]
        cells = (
            family.name,
            ", ".join(f"`{each}`" for each in sorted(family.model_types)),
            "yes" if family.marks else "",
            calls,
            "analysis channel" if family.style else " or ".join(reasoning),
            " ".join(f"`{each}`" for each in family.stop_tokens),
            ", ".join(f"`{each.variable}`" for each in family.thinking) if family.reasoning else "",
            f"`{family.image_token}`" if family.image_token else "",
        )
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(rows)


def anthropic_parameters() -> str:
    """The same for Anthropic's dialect."""
    rows = ["| parameter | messages | count_tokens | |", "| --- | --- | --- | --- |"]
    for row in MESSAGES_PARAMETERS.values():
        count = COUNT_TOKENS_PARAMETERS[row.name].support.value
        rows.append(f"| `{row.name}` | {row.support.value} | {count} | {_noted(row)} |")
    return "\n".join(rows)


def _noted(row: Parameter) -> str:
    return _cell(f"{row.note}; passed on" if row.is_passed_on else row.note)


def cloud_parameters() -> str:
    """What becomes of every served parameter at every kind of provider."""
    tables = []
    for dialect, rows in CROSSINGS.items():
        heading = f"| `{_PATHS[dialect]}` | {' | '.join(f'`{kind}`' for kind in ProviderKind)} |"
        lines = [heading, "| --- | --- | --- | --- |"]
        for row in rows:
            label, _, value = row.label.partition(": ")
            cells = [_fields(row.at(kind)) for kind in ProviderKind]
            lines.append(f"| `{label}`{f' ({value})' if value else ''} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


_PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def _fields(cell: str) -> str:
    if cell == REFUSED:
        return cell
    return ", ".join(f"`{field}`" for field in cell.split(", ")) if cell else "–"


def module_map() -> str:
    """Every module with the first line of its docstring, room by room."""
    lines = [f"- `{module.name}`: {_module_summary(module)}" for module in sorted(PACKAGE.glob("*.py"))]
    for room in sorted(_rooms(), key=lambda folder: folder.name):
        lines += ["", f"### {room.name}", ""]
        for module in sorted(room.rglob("*.py")):
            lines.append(f"- `{module.relative_to(PACKAGE).as_posix()}`: {_module_summary(module)}")
    return "\n".join(lines)


PARTS = (
    Part("cli.md", "commands", commands),
    Part("settings.md", "settings", settings_table),
    Part("settings.md", "model settings", model_settings_table),
    Part("routes.md", "routes", routes),
    Part("routes.md", "parameters", parameters),
    Part("protocols.md", "response parameters", response_parameters),
    Part("families.md", "families", families),
    Part("protocols.md", "anthropic parameters", anthropic_parameters),
    Part("protocols.md", "cloud parameters", cloud_parameters),
    Part("structure.md", "modules", module_map),
)


def main() -> int:
    """Write or check all parts; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a part differs")
    is_check = parser.parse_args().check
    stale = 0
    for part in PARTS:
        page = part.path.read_text(encoding="utf-8")
        filled = part.filled(page)
        if filled == page:
            continue
        stale += 1
        if is_check:
            sys.stdout.writelines(_difference(page, filled, part.page))
        else:
            part.path.write_text(filled, encoding="utf-8")
            print(f"wrote docs/{part.page}")
    if stale and is_check:
        print(f"{stale} generated part(s) of docs/ differ from the code: run `make docs`.")
    return 1 if stale and is_check else 0


def _command_sections(command: TyperCommand | TyperGroup, name: str) -> Iterator[str]:
    context = typer.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", inspect.cleandoc(command.help or ""), "", "```", usage, "```"]
    rows = [row for parameter in command.params if (row := _parameter_row(parameter, context))]
    if rows:
        lines += ["", "| | what it is |", "| --- | --- |", *rows]
    yield "\n".join(lines)
    if isinstance(command, TyperGroup):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            if isinstance(child, TyperCommand | TyperGroup) and not child.hidden:
                yield from _command_sections(child, f"{name} {child_name}")


def _parameter_row(parameter: object, context: typer.Context) -> str | None:
    """Options and arguments as the help shows them; None for what it hides."""
    if not isinstance(parameter, TyperOption | TyperArgument):
        return None
    shown = parameter.get_help_record(context)
    if shown is None:
        return None
    names, text = shown
    return f"| `{_cell(names)}` | {_cell(text)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _rooms() -> list[Path]:
    return [folder for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()]


def _module_summary(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    if docstring is None:
        raise ValueError(f"{module.relative_to(REPOSITORY)} has no docstring")
    return _first_line(docstring)


def _first_line(docstring: str | None) -> str:
    return inspect.cleandoc(docstring or "").partition("\n")[0]


def _difference(page: str, filled: str, name: str) -> Iterator[str]:
    old, new = page.splitlines(keepends=True), filled.splitlines(keepends=True)
    return difflib.unified_diff(old, new, f"docs/{name}", f"docs/{name} from the code", n=0)


if __name__ == "__main__":
    sys.exit(main())
