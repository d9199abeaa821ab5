"""Settings of single models: one table, for config.toml and for the admin routes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mlx_manager.catalog import (
    MODEL_SETTINGS,
    LoadOptions,
    MemoryAmount,
    ModelOverrides,
    OverrideError,
    SettingsError,
    load_settings,
    override,
)


def load(home: Path, text: str) -> dict[str, ModelOverrides]:
    (home / "config.toml").write_text(text, encoding="utf-8")
    return dict(load_settings({"MLX_MANAGER_HOME": str(home)}, {}).models)


def test_the_table_covers_every_field_once() -> None:
    fields = [field.name for field in msgspec.structs.fields(ModelOverrides)]
    assert sorted(row.field for row in MODEL_SETTINGS) == sorted(fields)
    assert len({row.name for row in MODEL_SETTINGS}) == len(MODEL_SETTINGS)


def test_tables_of_config_toml_are_read(tmp_path: Path) -> None:
    models = load(
        tmp_path,
        '[models."org/a"]\naliases = ["gpt-4o"]\npinned = true\nttl = 60\nkv_budget = "1GiB"\ntemperature = 0.2\n'
        '[models.b]\npriority = "LOW"\nmax_context = 2048\n',
    )
    assert models["org/a"] == ModelOverrides(
        aliases=("gpt-4o",), pinned=True, ttl_s=60.0, kv_budget_bytes=1024**3, temperature=0.2
    )
    assert models["b"].load_options(LoadOptions()) == LoadOptions(max_context=2048)
    assert models["b"].priority == "low"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models = 3", "holds tables"),
        ("[models]\na = 1", "holds tables"),
        (
            "[models.a]\npined = true",
            r"no setting 'pined'. Did you mean pinned\? \(in \[models\.\"a\"\] of .*config\.toml",
        ),
        ("[models.a]\ntemperature = 3", "temperature cannot be 3: it takes a number from 0.0 to 2.0"),
        ('[models.a]\naliases = ["x"]\n[models.b]\naliases = ["x"]', "'x' of 'b' is an alias of 'a' too"),
        ('[models.a]\naliases = ["b"]\n[models.b]', "'b' of 'a' is a model of its own"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load(tmp_path, text)


def test_values_go_on_top_of_others() -> None:
    base = override(ModelOverrides(), {"pinned": True, "ttl": 5})
    assert override(base, {"ttl": "0"}) == ModelOverrides(pinned=True, ttl_s=0.0)
    with pytest.raises(OverrideError) as caught:
        override(base, {"dtype": "int8"})
    assert caught.value.name == "dtype"


def test_the_disk_is_left_out_for_one_model_alone() -> None:
    base = LoadOptions(disk_cache_bytes=1024)
    assert override(ModelOverrides(), {"disk_cache": "off"}).load_options(base).disk_cache_bytes == 0
    assert override(ModelOverrides(), {"disk_cache": "on"}).load_options(base) == base


def test_a_share_is_one_of_a_whole() -> None:
    assert MemoryAmount(share=0.75).of(1000) == 750
    assert MemoryAmount(num_bytes=5).of(1000) == 5
    assert [str(MemoryAmount(share=0.075)), str(MemoryAmount(num_bytes=1024**3))] == ["7.5%", "1.0 GiB"]
