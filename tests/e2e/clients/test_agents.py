"""Coding agents, started by `mlx-manager launch`: what they print, and that they carry out what a model calls."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mlx_manager.backends.scripted import Step, script_of
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Role,
    Usage,
)
from tests.e2e.clients.environment import program, run
from tests.e2e.parrot_model import make_parrot_model
from tests.e2e.server_process import COMMAND, ServerProcess, serving
from tests.http.scripted_server import Recorder, Shelf, running, shelved

SENTENCE = "Pieces of eight, says Polly."
HEADLESS = {"claude": ("-p",), "codex": ("exec", "--skip-git-repo-check"), "opencode": ("run",)}


@pytest.fixture(scope="module")
def parrot(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose model has room for the prompts of agents, and always says the same."""
    folder = tmp_path_factory.mktemp("parrot")
    make_parrot_model(folder / "parrot", starter_folder, SENTENCE)
    with serving(folder / "parrot", folder / "home", "--no-use-spare") as server:
        yield server


@pytest.mark.parametrize("agent", HEADLESS)
def test_an_agent_is_launched_and_answered(parrot: ServerProcess, tmp_path: Path, agent: str) -> None:
    program("node", "node_modules", ".bin", agent)
    port = parrot.url.rpartition(":")[2]
    said = run([COMMAND, "launch", agent, "--port", port, *HEADLESS[agent], "hello"], tmp_path)
    assert SENTENCE in said


CALLS = {
    "claude": ("Bash", {"command": "echo from-the-tool", "description": "Says something"}),
    "codex": ("exec_command", {"cmd": "echo from-the-tool"}),
    "opencode": ("bash", {"command": "echo from-the-tool", "description": "Says something"}),
}


FREE = {"claude": ("--allowedTools=Bash",), "codex": ("--dangerously-bypass-approvals-and-sandbox",)}
"""Agents keep to their folder and ask before they run anything; what they are to run here is harmless."""


class TwoTurns(Recorder):
    """Calls a tool, and once it has been told the outcome, says so."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The script for the conversation as it stands; a request without tools, for a title, is only answered."""
        assert isinstance(request.prompt, ChatPrompt)
        is_told = not request.prompt.tools or any(said.role is Role.TOOL for said in request.prompt.messages)
        async for event in super().generate(replace(request, model="told" if is_told else "asked")):
            yield event


def call_of(name: str, arguments: dict[str, str]) -> tuple[Step, ...]:
    text = json.dumps(arguments)
    return (
        PromptReady(9),
        PartStart(0, PartKind.REASONING),
        PartDelta(0, "I should call it."),
        PartEnd(0),
        PartStart(0, PartKind.TOOL_CALL, "call_1", name),
        *(PartDelta(0, text[start : start + 5]) for start in range(0, len(text), 5)),
        PartEnd(0),
        ChoiceEnd(0, FinishReason.TOOL_CALLS),
        Finished(Usage(num_prompt_tokens=9, num_cached_tokens=0, num_completion_tokens=5)),
    )


@pytest.mark.parametrize("agent", HEADLESS)
def test_an_agent_carries_out_a_call_and_tells_what_came_of_it(tmp_path: Path, agent: str) -> None:
    program("node", "node_modules", ".bin", agent)
    backend = TwoTurns({"asked": call_of(*CALLS[agent]), "told": script_of(("All ", "done."))})
    settings = load_settings({}, {"home": str(tmp_path / "home"), "port": 0})
    with running(settings, backend, Shelf([shelved("m")], default_model="m")) as served:
        free = FREE.get(agent, ())
        command = [COMMAND, "launch", agent, "--port", str(served.port), *HEADLESS[agent], *free, "hello"]
        said = run(command, tmp_path)
    assert "All done." in said
    outcomes = [
        message.text
        for request in backend.requests
        if isinstance(request.prompt, ChatPrompt)
        for message in request.prompt.messages
        if message.role is Role.TOOL
    ]
    assert any("from-the-tool" in outcome for outcome in outcomes), outcomes


def test_the_second_turn_of_claude_code_finds_the_first_in_the_prefix_cache(
    parrot: ServerProcess, tmp_path: Path
) -> None:
    program("node", "node_modules", ".bin", "claude")
    launch: list[str | Path] = [
        COMMAND,
        "launch",
        "claude",
        "--port",
        parrot.url.rpartition(":")[2],
        "-p",
        "--output-format=json",
    ]
    first, second = (json.loads(run([*launch, *more], tmp_path)) for more in (("hello",), ("--continue", "and again")))
    assert first["result"] == second["result"] == SENTENCE
    usage = second["usage"]
    prompt = usage["input_tokens"] + usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
    assert prompt > 5000
    assert prompt - usage["cache_read_input_tokens"] < 400, usage
