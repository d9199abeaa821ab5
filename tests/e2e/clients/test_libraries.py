"""Libraries of others against real servers: a script for each, run with its own environment's Python or Node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.clients.environment import SCRIPTS, program, run
from tests.e2e.server_process import ServerProcess


def aims(server: ServerProcess, caller: ServerProcess) -> dict[str, str]:
    """What the scripts read from their variables."""
    return {
        "URL": server.url,
        "MODEL": server.model,
        "CALLER_URL": caller.url,
        "CALLER": caller.model,
        # or it asks the web for prices
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


@pytest.mark.parametrize(
    ("environment", "script"),
    [
        ("python", "pydantic_ai_agent"),
        ("python", "langchain_chat"),
        ("python", "langchain_claude"),
        ("python", "openai_agents_run"),
        ("apart", "litellm_calls"),
        ("apart", "instructor_models"),
    ],
)
def test_a_library_works(
    server: ServerProcess, caller: ServerProcess, tmp_path: Path, environment: str, script: str
) -> None:
    python = program(environment, "bin", "python")
    run([python, SCRIPTS / f"{script}.py"], tmp_path, **aims(server, caller))


@pytest.mark.parametrize(("package", "name"), [("openai", "node_sdk"), ("@anthropic-ai/sdk", "node_anthropic")])
def test_the_sdks_of_node_work(
    server: ServerProcess, caller: ServerProcess, tmp_path: Path, package: str, name: str
) -> None:
    program("node", "node_modules", package)
    (tmp_path / "node_modules").symlink_to(program("node", "node_modules"))
    script = tmp_path / f"{name}.mjs"
    script.write_text((SCRIPTS / f"{name}.mjs").read_text())
    run(["node", script], tmp_path, **aims(server, caller))


def test_llm_works(server: ServerProcess, caller: ServerProcess, tmp_path: Path) -> None:
    llm = program("python", "bin", "llm")
    models = [
        {"model_id": "starter", "model_name": server.model, "api_base": f"{server.url}/v1", "supports_schema": True},
        {"model_id": "caller", "model_name": caller.model, "api_base": f"{caller.url}/v1", "supports_tools": True},
    ]
    # JSON is YAML
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))

    def ask(*arguments: str) -> str:
        variables = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
        return run(
            [llm, *arguments, "-o", "temperature", "0", "-o", "max_tokens", "120"], tmp_path, **variables
        ).strip()

    answer = "The capital of France is Paris."
    question = "What is the capital of France?"
    assert ask("-m", "starter", question) == ask("-m", "starter", "--no-stream", question) == answer
    number = {"type": "object", "properties": {"number": {"enum": [3, 5]}}, "required": ["number"]}
    schema = json.dumps(number | {"additionalProperties": False})
    assert json.loads(ask("-m", "starter", "--schema", schema, "Name a number."))["number"] in (3, 5)
    weather = 'def get_weather(city: str) -> str:\n    """Get the current weather for a city"""\n    return "sunny"\n'
    asked = ask("-m", "caller", "--functions", weather, "What is the weather in Paris?")
    assert asked == "The weather in Paris is sunny."
