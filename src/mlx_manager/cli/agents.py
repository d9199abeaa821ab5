"""How coding agents are told about a server: by variables and flags alone, so that their own files do not change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mlx_manager.errors import InvalidRequest

_KEY_VARIABLE = "MLX_MANAGER_API_KEY"
_PROVIDER = "mlx-manager"


@dataclass(frozen=True)
class Aim:
    """What an agent is pointed at."""

    base_url: str
    """Of the server, without a path."""
    token: str
    model: str
    max_context: int | None
    """In tokens; None where the model does not say."""


@dataclass(frozen=True)
class Command:
    """What has to be run: the arguments that go before those of the user, and the variables."""

    arguments: tuple[str, ...]
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Agent:
    """One coding agent."""

    program: str
    install: str
    """How to install it, in a command."""
    aimed: Callable[[Aim], Command]


def agent_named(name: str) -> Agent:
    """One of those that are known. Raises `InvalidRequest`."""
    agent = AGENTS.get(name)
    if agent is None:
        raise InvalidRequest(f"There is no agent {name!r} here: launch one of {', '.join(AGENTS)}.", param="agent")
    return agent


def _claude(aim: Aim) -> Command:
    models = ("MODEL", "DEFAULT_OPUS_MODEL", "DEFAULT_SONNET_MODEL", "DEFAULT_HAIKU_MODEL")
    return Command(
        (),
        {
            "ANTHROPIC_BASE_URL": aim.base_url,
            "ANTHROPIC_AUTH_TOKEN": aim.token,
            **{f"ANTHROPIC_{name}": aim.model for name in models},
            "CLAUDE_CODE_SUBAGENT_MODEL": aim.model,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            # it puts text into the prompt that differs for each conversation
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
            "DISABLE_AUTOUPDATER": "1",
        },
    )


def _codex(aim: Aim) -> Command:
    # its settings are TOML, and so is the value of each -c
    provider = (
        f'{{name = "MLX Manager", base_url = {json.dumps(aim.base_url + "/v1")}, env_key = "{_KEY_VARIABLE}", '
        'wire_api = "responses", stream_idle_timeout_ms = 3600000}'
    )
    settings = {
        "model": json.dumps(aim.model),
        "model_provider": json.dumps(_PROVIDER),
        f"model_providers.{_PROVIDER}": provider,
    }
    if aim.max_context is not None:
        settings["model_context_window"] = str(aim.max_context)
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Command(tuple(arguments), {_KEY_VARIABLE: aim.token})


def _opencode(aim: Aim) -> Command:
    described: dict[str, object] = {"name": aim.model}
    if aim.max_context is not None:
        described["limit"] = {"context": aim.max_context, "output": aim.max_context // 4}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "MLX Manager",
        "options": {"baseURL": f"{aim.base_url}/v1", "apiKey": f"{{env:{_KEY_VARIABLE}}}"},
        "models": {aim.model: described},
    }
    model = f"{_PROVIDER}/{aim.model}"
    settings = {"provider": {_PROVIDER: provider}, "model": model, "small_model": model}
    return Command((), {"OPENCODE_CONFIG_CONTENT": json.dumps(settings), _KEY_VARIABLE: aim.token})


AGENTS: Mapping[str, Agent] = MappingProxyType(
    {
        "claude": Agent("claude", "npm install -g @anthropic-ai/claude-code", _claude),
        "codex": Agent("codex", "npm install -g @openai/codex", _codex),
        "opencode": Agent("opencode", "npm install -g opencode-ai", _opencode),
    }
)
"""By the word that launches it."""
