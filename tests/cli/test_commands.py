"""The commands that end by themselves, as processes: what they print, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from mlx_manager.catalog import SETTINGS
from mlx_manager.worker.verdicts import StoredVerdict, VerdictStore
from tests.cli.server_process import run
from tests.hub.gguf_writer import tiny_llama


def test_help_names_the_commands_and_loads_nothing_heavy(tmp_path: Path) -> None:
    helped = run(tmp_path, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert helped.returncode == 0
    for command in ("serve", "import", "models", "doctor", "bench"):
        assert re.search(rf"^  {command} ", helped.stdout, re.MULTILINE)
    loaded = set(re.findall(r"\| +(\w+)$", helped.stderr, re.MULTILINE))
    assert "typer" in loaded
    assert not loaded & {"mlx", "fastapi", "uvicorn", "httpx", "transformers", "psutil", "zmq", "pydantic"}


def test_serve_has_a_flag_for_each_setting(tmp_path: Path) -> None:
    helped = run(tmp_path, "serve", "--help")
    for row in SETTINGS:
        assert f"{row.flag} " in helped.stdout


def test_version(tmp_path: Path) -> None:
    assert re.fullmatch(r"mlx-manager \d+\.\d+\.\d+\S*\n", run(tmp_path, "--version").stdout)


def test_a_gguf_is_imported_and_listed(tmp_path: Path) -> None:
    source = tiny_llama().write(tmp_path / "My tiny (1).gguf")
    done = run(tmp_path, "import", str(source))
    assert (done.returncode, done.stdout) == (
        0,
        "Imported My-tiny-1 (llama, fp32, 309.0 KiB)\nServe it: mlx-manager serve --model My-tiny-1\n",
    )
    assert "Importing My tiny (1).gguf: writing the weights" in done.stderr
    again = run(tmp_path, "import", str(source))
    assert (again.returncode, again.stdout) == (1, "")
    assert re.search(r"^error: .*exists already\..*--force\.$", again.stderr, re.MULTILINE)
    assert run(tmp_path, "import", str(source), "--force").returncode == 0
    assert run(tmp_path, "import", str(source), "--name", "org/other").returncode == 0
    listed = run(tmp_path, "models")
    header, first, second = listed.stdout.splitlines()
    assert header.split() == ["name", "architecture", "kind", "parameters", "quantization", "size", "context", "path"]
    assert first.split()[:5] == ["My-tiny-1", "llama", "text", "78.6K", "fp32"]
    assert second.split()[0] == "org/other"
    entries = json.loads(run(tmp_path, "models", "--json").stdout)
    assert [(entry["name"], entry["max_context"]) for entry in entries] == [("My-tiny-1", 256), ("org/other", 256)]


def test_an_empty_home_says_what_to_do(tmp_path: Path) -> None:
    listed = run(tmp_path, "models")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "mlx-manager import FILE.gguf" in listed.stdout
    assert run(tmp_path, "models", "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "variables", "exit_code", "message"),
    [
        (("import", "missing.gguf"), {}, 1, r"There is no file .*missing\.gguf\."),
        (("serve", "--model", "nothing"), {}, 1, r"There is no model 'nothing'.*\(there: .+\)\."),
        (
            ("serve", "--port", "http"),
            {},
            2,
            r"port cannot be 'http' \(from the flag --port\): it takes a whole number .*",
        ),
        (("serve",), {"MLX_MANAGER_DTYPE": "int4"}, 2, r"dtype cannot be 'int4' \(from the environment variable .*"),
        (("serve", "--port", "0", "--host", "no.such.host.invalid"), {}, 1, r"There is no address .*Check --host\."),
        (
            ("serve", "--port", "0", "--host", "192.0.2.1"),
            {},
            1,
            r"The server cannot listen on 192\.0\.2\.1 .*--host\.",
        ),
        (("models",), {"MLX_MANAGER_HOME": "  "}, 2, r"home cannot be .*"),
    ],
)
def test_an_error_is_one_line_with_its_fix(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], exit_code: int, message: str
) -> None:
    done = run(tmp_path, *arguments, **variables)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert re.fullmatch(rf"error: {message}\n", done.stderr)


def test_an_unknown_flag_is_misuse(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--prot", "1")
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_a_taken_port_is_explained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, "serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: Port {port} on 127.0.0.1 is taken by another program. Choose another with --port; "
        "--port 0 takes a free one.\n"
    )


def test_a_misspelt_variable_is_warned_of(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--model", "nothing", MLX_MANAGER_PROT="1")
    assert done.stderr.startswith("warning: MLX_MANAGER_PROT is set, but no setting reads it.")


def test_the_doctor_looks_at_everything(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", "--port", "0", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    wanted = {"program", "device", "versions", "memory", "home", "disk", "models", "port", "attention", "spare"}
    assert wanted <= set(findings)
    assert done.returncode == 0
    assert "mlx " in findings["versions"]["text"]
    assert "SmolLM2-135M-Instruct" in findings["models"]["text"]


def test_the_doctor_says_how_each_model_was_found_to_be_served(tmp_path: Path) -> None:
    source = tiny_llama().write(tmp_path / "tiny.gguf")
    for name in ("agreed", "differed", "new"):
        assert run(tmp_path, "import", str(source), "--name", name).returncode == 0
    store = VerdictStore(tmp_path / "state" / "verdicts")
    for key, name, is_paged, reason in (
        ("1", "differed", True, "as it once was"),
        ("2", "agreed", True, "the same as the library's"),
        ("3", "differed", False, "other logits"),
        ("4", "gone", True, "no longer here"),
    ):
        store.put(
            key,
            StoredVerdict(model=name, is_paged=is_paged, attention="gather_mm", shares_prefixes=False, reason=reason),
        )
        os.utime(tmp_path / "state" / "verdicts" / f"{key}.json", (int(key), int(key)))
    (tmp_path / "state" / "verdicts" / "5.json").write_text('{"is_paged": true, "attention": "", "reason": "nameless"}')
    (tmp_path / "state" / "verdicts" / "6.json").write_text("{")
    done = run(tmp_path, "doctor", "--port", "0", "--json")
    findings = [finding for finding in json.loads(done.stdout) if finding["name"] == "attention"]
    assert {(finding["model"], finding["state"], finding["text"]) for finding in findings if finding["model"]} == {
        ("agreed", "ok", "agreed: paged, gather_mm at its last check (the same as the library's)"),
        ("differed", "warning", "differed: sequential at its last check (other logits)"),
        ("new", "ok", "new: no check is kept; it is chosen and checked when the model is loaded"),
    }
    (broken,) = (finding for finding in findings if finding["model"] is None)
    assert "6.json cannot be read" in broken["text"]
    assert "Remove it" in broken["fix"]


def test_the_doctor_names_each_problem_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path / "file" / "home", "doctor", "--port", str(port), MLX_MANAGER_PROT="1")
    assert done.returncode == 1
    assert re.search(
        r"^PROBLEM home .*cannot be written to: Not a directory\n +→ .*MLX_MANAGER_HOME", done.stdout, re.M
    )
    assert re.search(rf"^PROBLEM port .*{port} is taken by another program\n +→ .*--port", done.stdout, re.MULTILINE)
    assert re.search(r"^warning settings .*MLX_MANAGER_PROT", done.stdout, re.MULTILINE)


def test_the_doctor_reports_a_wrong_setting_instead_of_failing(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", MLX_MANAGER_KV_BUDGET="much")
    assert done.returncode == 1
    assert re.search(r"^PROBLEM settings +kv_budget cannot be 'much'", done.stdout, re.MULTILINE)
