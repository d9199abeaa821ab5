"""Prefixes on disk, through the front door: found again after a restart, and gone when none are to be kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mlx_manager.app.parts import local_parts
from mlx_manager.catalog.settings import load_settings
from tests.e2e.server_process import ServerProcess, serving, wait_until

MODEL = Path(__file__).parents[1] / "data" / "tiny_tool_caller"
PROMPT = [7 + index % 200 for index in range(300)]


def ask(server: ServerProcess) -> tuple[str, int]:
    """The greedy answer to the prompt, and how many of its tokens were found."""
    answer = server.sdk.completions.create(
        model=server.model, prompt=PROMPT, max_tokens=8, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    details = answer.usage.prompt_tokens_details
    return answer.choices[0].text, 0 if details is None else details.cached_tokens or 0


def test_a_prompt_seen_before_a_restart_is_found(tmp_path: Path) -> None:
    flags = ("--disk-cache", "1GiB", "--no-use-spare", "--no-console", "--dtype", "float32")
    with serving(MODEL, tmp_path, *flags) as server:
        text, num_cached = ask(server)
        assert num_cached == 0
        files = tmp_path / "state" / "prefix-cache"
        wait_until(lambda: len(list(files.glob("*/*.safetensors"))) >= 9, 10, server.output.read_text)
    with serving(MODEL, tmp_path, *flags) as server:
        assert ask(server) == (text, 288)
        assert server.stats()["num_restored_tokens"] == 288


def test_a_start_that_keeps_none_removes_what_an_earlier_one_kept(tmp_path: Path) -> None:
    kept = tmp_path / "state" / "prefix-cache" / "model" / "00.safetensors"
    kept.parent.mkdir(parents=True)

    async def start(disk_cache: str) -> None:
        settings = load_settings({}, {"home": str(tmp_path), "disk_cache": disk_cache, "use_spare": False})
        async with local_parts(settings):
            pass

    kept.write_bytes(b"what somebody wrote")
    asyncio.run(start("1MiB"))
    assert kept.exists()
    asyncio.run(start("0"))
    assert not (tmp_path / "state" / "prefix-cache").exists()
    asyncio.run(start("0"))
