"""One table: where a setting comes from, which wins, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from mlx_manager.catalog import (
    SETTINGS,
    LoadOptions,
    MemoryAmount,
    Settings,
    SettingsError,
    load_settings,
    unknown_variables,
)

GOOD: Mapping[str, tuple[str, object]] = {
    "home": ("/srv/models", Path("/srv/models")),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("8080", 8080),
    "model": ("org/name", "org/name"),
    "log_level": ("DEBUG", "debug"),
    "max_body": ("1.5MiB", 1572864),
    "max_messages": ("50", 50),
    "max_tools": ("5", 5),
    "shutdown_timeout": ("30", 30),
    "prefix_isolation": ("User", "user"),
    "update_url": ("https://index.example/json", "https://index.example/json"),
    "keepalive": ("0.5", 0.5),
    "database": ("postgresql://me@db/mlx", "postgresql://me@db/mlx"),
    "cors_origins": ("https://a.example, https://b.example", ("https://a.example", "https://b.example")),
    "use_cloud": ("off", False),
    "cloud_budget": ("12.5", 12.5),
    "local_timeout": ("60", 60.0),
    "use_spare": ("no", False),
    "console": ("no", False),
    "hf_token": ("hf_abc", "hf_abc"),
    "scan_folders": ("lmstudio, /srv/models", ("lmstudio", "/srv/models")),
    "memory_budget": ("12GiB", MemoryAmount(num_bytes=12 * 1024**3)),
    "memory_floor": ("7.5%", MemoryAmount(share=0.075)),
    "eviction": ("LFU", "lfu"),
    "drain_timeout": ("0", 0.0),
    "hang_timeout": ("0", 0.0),
    "load_timeout": ("60", 60.0),
    "leak_limit": ("2GiB", MemoryAmount(num_bytes=2 * 1024**3)),
    "failure_cooldown": ("10", 10.0),
    "model_ttl": ("600", 600.0),
    "preload": ("one, org/two", ("one", "org/two")),
    "dtype": ("bfloat16", "bfloat16"),
    "kv_budget": ("4GB", 4_000_000_000),
    "kv_cache_bits": ("8", 8),
    "max_batch_size": ("8", 8),
    "max_queued_requests": ("10", 10),
    "max_step_tokens": ("1024", 1024),
    "max_context": ("4096", 4096),
    "shared_prefix_decode": ("off", "off"),
    "max_draft_tokens": ("8", 8),
    "default_max_tokens": ("256", 256),
    "image_timeout": ("2.5", 2.5),
    "image_hosts": ("files.lan, 10.0.0.7", ("files.lan", "10.0.0.7")),
    "max_images": ("0", 0),
    "max_image_bytes": ("1MiB", 1024**2),
    "max_image_pixels": ("1000", 1000),
    "max_request_pixels": ("100000", 100_000),
    "max_video_bytes": ("1MiB", 1024**2),
    "max_video_length": ("30", 30.0),
    "max_video_frames": ("0", 0),
    "max_video_pixels": ("1000", 1000),
    "disk_cache": ("1GiB", 1024**3),
    "image_cache": ("0", 0),
    "priority_ageing": ("1.25", 1.25),
    "template_timeout": ("2", 2.0),
    "responses_max_age": ("0", 0.0),
    "responses_max_size": ("1GiB", 1024**3),
    "audit_max_rows": ("500", 500),
    "audit_max_age": ("24", 24.0),
    "alert_webhook": ("https://example.org/hook", "https://example.org/hook"),
    "alert_error_share": ("0.2", 0.2),
    "alert_ttft": ("1.5", 1.5),
    "alert_worker_restarts": ("5", 5),
    "alert_disk_free": ("5GiB", 5 * 1024**3),
    "alert_period": ("30", 30.0),
    "traces": ("off", False),
    "trace_content": ("on", True),
    "trace_max_size": ("64MiB", 64 * 1024**2),
    "trace_max_age": ("12", 12.0),
}

BAD: Mapping[str, tuple[str, ...]] = {
    "home": (" ",),
    "host": (" ",),
    "port": ("-1", "65536", "80.5", "http", "0x50"),
    "model": (" ",),
    "log_level": ("loud",),
    "max_body": ("0", "lots", "-1MiB", "1 PiB", "1.5"),
    "max_messages": ("0",),
    "max_tools": ("many",),
    "shutdown_timeout": ("-1", "soon"),
    "prefix_isolation": ("nobody",),
    "update_url": ("index",),
    "keepalive": ("0", "nan", "inf", "soon"),
    "database": (" ",),
    "cors_origins": (" ", "https://a.example,,"),
    "use_cloud": ("sometimes",),
    "cloud_budget": ("-1", "lots"),
    "local_timeout": ("0", "inf"),
    "use_spare": ("maybe", "2"),
    "console": ("maybe", "2"),
    "hf_token": (" ",),
    "scan_folders": (" ", "lmstudio,,ollama"),
    "memory_budget": ("101%", "much", "-1", "3 pies"),
    "memory_floor": ("x%",),
    "eviction": ("fifo",),
    "drain_timeout": ("-1", "nan"),
    "hang_timeout": ("-1",),
    "load_timeout": ("soon",),
    "leak_limit": ("lots",),
    "failure_cooldown": ("-1",),
    "model_ttl": ("-1",),
    "preload": (" ", "a,,b"),
    "dtype": ("int8",),
    "kv_budget": ("1KiB", "2Gi", "GiB"),
    "kv_cache_bits": ("16", "-4", "4.0", "eight"),
    "max_batch_size": ("0", "-1", "two"),
    "max_queued_requests": ("0",),
    "max_step_tokens": ("15",),
    "max_context": ("0",),
    "shared_prefix_decode": ("maybe",),
    "max_draft_tokens": ("-1", "65"),
    "default_max_tokens": ("0",),
    "image_timeout": ("0",),
    "image_hosts": (" ",),
    "max_images": ("-1",),
    "max_image_bytes": ("1000",),
    "max_image_pixels": ("0",),
    "max_request_pixels": ("1000",),
    "max_video_bytes": ("1000",),
    "max_video_length": ("0",),
    "max_video_frames": ("-1",),
    "max_video_pixels": ("0",),
    "disk_cache": ("-1",),
    "image_cache": ("-1",),
    "priority_ageing": ("0", "-1"),
    "template_timeout": ("0",),
    "responses_max_age": ("-1",),
    "responses_max_size": ("lots",),
    "audit_max_rows": ("0",),
    "audit_max_age": ("0", "-1"),
    "alert_webhook": ("example.org", "ftp://example.org"),
    "alert_error_share": ("1.5", "-0.1"),
    "alert_ttft": ("-1",),
    "alert_worker_restarts": ("-1", "few"),
    "alert_disk_free": ("-1",),
    "alert_period": ("0",),
    "traces": ("maybe",),
    "trace_content": ("2",),
    "trace_max_size": ("1KiB",),
    "trace_max_age": ("0",),
}


def value_of(settings: Settings, name: str) -> object:
    row = next(row for row in SETTINGS if row.name == name)
    return getattr(settings.load if row.is_load else settings, row.field)


def config(home: Path, text: str) -> dict[str, str]:
    """The environment of a home with this config.toml."""
    (home / "config.toml").write_text(text, encoding="utf-8")
    return {"MLX_MANAGER_HOME": str(home)}


def test_the_table_covers_every_setting_once() -> None:
    load = {field.name for field in msgspec.structs.fields(LoadOptions)}
    # where a worker keeps its verdicts follows from home; a host file and a draft model are one model's own
    assert {row.field for row in SETTINGS if row.is_load} == load - {
        "state_folder",
        "hostfile",
        "draft_model",
        "draft_entry",
    }
    own = {field.name for field in msgspec.structs.fields(Settings)} - {"load", "models", "origins"}
    assert {row.field for row in SETTINGS if not row.is_load} == own
    names = [row.name for row in SETTINGS]
    assert len(set(names)) == len(names)
    assert set(GOOD) == set(BAD) == set(names)


def test_defaults_hold_where_nothing_is_said(tmp_path: Path) -> None:
    settings = load_settings({"MLX_MANAGER_HOME": str(tmp_path)}, {})
    assert settings.load == LoadOptions()
    assert (settings.host, settings.port, settings.model, settings.use_spare) == ("127.0.0.1", 10242, None, True)
    assert load_settings({}, {}).home == Path("~/.mlx-manager").expanduser()


@pytest.mark.parametrize("name", GOOD)
def test_a_setting_is_read_from_each_source(tmp_path: Path, name: str) -> None:
    text, value = GOOD[name]
    row = next(row for row in SETTINGS if row.name == name)
    assert value_of(load_settings({}, {name: text}), name) == value
    assert value_of(load_settings({row.env: text}, {}), name) == value
    if name != "home":
        assert value_of(load_settings(config(tmp_path, f'{name} = "{text}"'), {}), name) == value


def test_flags_win_over_variables_and_these_over_the_file(tmp_path: Path) -> None:
    environ = config(tmp_path, "port = 1\nmax_batch_size = 4\nuse_spare = false\nkeepalive = 2")
    environ |= {"MLX_MANAGER_PORT": "2", "MLX_MANAGER_MAX_BATCH_SIZE": "5"}
    settings = load_settings(environ, {"port": "3", "max_batch_size": None})
    assert (settings.port, settings.load.max_batch_size, settings.use_spare, settings.keepalive_s) == (3, 5, False, 2.0)


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert load_settings(config(tmp_path, "port = 7") | {"MLX_MANAGER_PORT": ""}, {}).port == 7


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_bad_value_is_told_its_name_its_source_and_the_fix(tmp_path: Path, name: str, text: str) -> None:
    row = next(row for row in SETTINGS if row.name == name)
    sources: list[tuple[str, dict[str, str], dict[str, object]]] = [
        (f"the flag {row.flag}", {}, {name: text}),
        (f"the environment variable {row.env}", {row.env: text}, {}),
    ]
    if name != "home":
        file = f"{name} in {tmp_path / 'config.toml'}"
        sources.append((file, config(tmp_path, f'{name} = "{text}"'), {}))
    for source, environ, flags in sources:
        with pytest.raises(SettingsError) as refusal:
            load_settings(environ, flags)
        message = str(refusal.value)
        assert message.startswith(f"{name} cannot be {text!r} (from {source}): it takes ")


@pytest.mark.parametrize(
    "line",
    ["port = true", "port = 80.5", "use_spare = 3", "kv_budget = 2.5", "host = 1", "dtype = 16", "keepalive = []"],
)
def test_a_toml_value_of_the_wrong_type_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match="it takes"):
        load_settings(config(tmp_path, line), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "There is no setting 'prot' .*Did you mean port"),
        ("zzzzzz = 1", "There is no setting 'zzzzzz' .*Known settings: home, host"),
        ("[load]\nport = 1", "There is no setting 'load'"),
        ('home = "/elsewhere"', "home cannot be set in .*MLX_MANAGER_HOME"),
        ("port 1", "is not valid TOML"),
    ],
)
def test_a_wrong_config_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(config(tmp_path, text), {})


def test_a_config_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({"MLX_MANAGER_HOME": str(tmp_path)}, {})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_step_tokens": "16", "max_batch_size": "32"}, "less than max_batch_size"),
        ({"max_context": "100", "default_max_tokens": "100"}, "leaves no room"),
        ({"prt": "1"}, "There is no setting 'prt'. Did you mean port"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings({}, flags)


def test_a_misspelt_variable_is_noticed() -> None:
    environ = {"MLX_MANAGER_PROT": "1", "MLX_MANAGER_PORT": "2", "PATH": "/bin"}
    assert unknown_variables(environ) == [
        "MLX_MANAGER_PROT is set, but no setting reads it. Did you mean MLX_MANAGER_PORT?"
    ]
