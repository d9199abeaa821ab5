"""The settings of one model in a dialog, made from their table; what is left empty follows the server's."""

from __future__ import annotations

from nicegui import ui

from mlx_manager.catalog import MODEL_SETTINGS, ModelOverrides, ModelSetting, render_override
from mlx_manager.errors import InvalidRequest
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import box, button, dialog, tell, text
from mlx_manager.ui.fields import dress
from mlx_manager.ui.recording import record

_ELSEWHERE = ("pinned", "priority")
"""Those have their own controls on the tile."""
_LONG = ("description", "system_prompt")
_TITLES = {
    "aliases": "Other names (aliases)",
    "ttl": "Idle seconds until unloaded",
    "system_prompt": "Default system prompt",
    "dtype": "Type to compute in",
    "kv_budget": "Memory for keys and values",
    "kv_cache_bits": "Bits of keys and values",
    "max_context": "Context limit, tokens",
    "shared_prefix_decode": "Shared beginnings",
    "max_draft_tokens": "Most tokens guessed ahead",
    "draft_model": "Draft model",
    "disk_cache": "Prefixes on disk",
    "hostfile": "Host file of a split model",
    "temperature": "Temperature",
    "top_p": "Top p",
    "top_k": "Top k",
    "min_p": "Min p",
    "repetition_penalty": "Repetition penalty",
    "max_tokens": "Longest answer, tokens",
}


def profile_dialog(console: Console, name: str) -> None:
    """Opens the dialog. Saved values hold at once, but for those that say they need a load."""
    said = console.need_pool().overrides(name)
    fields: dict[str, ui.input | ui.textarea | ui.select] = {}
    with dialog(f"Profile of {name}", is_wide=True) as opened:
        text("What is left empty follows the server's settings and the model's own files.", "soft", "p")
        with box("form-grid"):
            for row in MODEL_SETTINGS:
                if row.name not in _ELSEWHERE:
                    fields[row.name] = _field(row, said)

        def save() -> None:
            values = {key: field.value or None for key, field in fields.items() if field.value != _shown(key, said)}
            for field in fields.values():
                field.props(remove="error error-message")
            try:
                console.need_pool().change(name, values)
            except InvalidRequest as error:
                field = fields.get(error.param or "", fields["aliases"])
                field.props["error"] = True
                field.props["error-message"] = error.message
                return
            record(console, "model.change", name, values)
            opened.close()
            late = [_title(row.name) for row in MODEL_SETTINGS if row.needs_load and row.name in values]
            tell(f"Saved. After the next load: {', '.join(late)}." if late else "Saved; it holds from now on.")

        with box("dialog-foot"):
            button("Cancel", opened.close)
            button("Save", save, look="main")


def _field(row: ModelSetting, said: ModelOverrides) -> ui.input | ui.textarea | ui.select:
    hint = row.help + (" Holds after the next load." if row.needs_load else "")
    made: ui.input | ui.textarea | ui.select
    if row.choices:
        made = ui.select(
            list(row.choices), label=_title(row.name), value=_shown(row.name, said) or None, clearable=True
        )
    elif row.name in _LONG:
        made = (
            ui.textarea(_title(row.name), value=_shown(row.name, said)).props("autogrow").style("grid-column: 1 / -1")
        )
    else:
        made = ui.input(_title(row.name), value=_shown(row.name, said))
    dress(made, hint)
    return made


def _title(name: str) -> str:
    return _TITLES.get(name) or name.replace("_", " ").capitalize()


def _shown(name: str, said: ModelOverrides) -> str:
    """The value as the form shows it; empty where the model says nothing of its own."""
    row = next(row for row in MODEL_SETTINGS if row.name == name)
    return render_override(getattr(said, row.field))
