"""How the clients are told about this server, for those of them whose API it serves."""

from __future__ import annotations

from collections.abc import Collection

KEY_VARIABLE = "MLX_MANAGER_API_KEY"
"""Where the snippets take the API key from, so that none is written into a file."""


def client_snippets(base: str, model: str, api_paths: Collection[str], *, needs_key: bool) -> dict[str, str]:
    """By client: what to paste. `base` is the server's address without a path."""
    told = {"base": base, "model": model}
    snippets = {
        "curl": _CURL.format(header=_CURL_KEY if needs_key else "", **told),
        "Python": (_PYTHON_KEY if needs_key else _PYTHON).format(**told) + _PYTHON_REST.format(**told),
    }
    if "/v1/messages" in api_paths:
        token = f"${KEY_VARIABLE}" if needs_key else "unused"
        snippets["Claude Code"] = _CLAUDE_CODE.format(token=token, **told)
    if "/v1/responses" in api_paths:
        snippets["Codex"] = _CODEX.format(**told) + (f'\nenv_key = "{KEY_VARIABLE}"' if needs_key else "")
    return snippets


_CURL_KEY = f""" \\
  -H "Authorization: Bearer ${KEY_VARIABLE}\""""
_CURL = """curl {base}/v1/chat/completions -H "Content-Type: application/json"{header} -d '{{
  "model": "{model}",
  "messages": [{{"role": "user", "content": "What is the capital of France?"}}],
  "temperature": 0
}}'"""

_PYTHON = """from openai import OpenAI

client = OpenAI(base_url="{base}/v1", api_key="unused")
"""

_PYTHON_KEY = f"""import os

from openai import OpenAI

client = OpenAI(base_url="{{base}}/v1", api_key=os.environ["{KEY_VARIABLE}"])
"""

_PYTHON_REST = """answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "What is the capital of France?"}}],
    temperature=0,
)
print(answer.choices[0].message.content)"""

_CLAUDE_CODE = """export ANTHROPIC_BASE_URL={base}
export ANTHROPIC_AUTH_TOKEN={token}
export ANTHROPIC_MODEL={model}
export ANTHROPIC_SMALL_FAST_MODEL={model}
claude"""

_CODEX = """# ~/.codex/config.toml
model = "{model}"
model_provider = "mlx-manager"

[model_providers.mlx-manager]
name = "MLX Manager"
base_url = "{base}/v1"
wire_api = "responses\""""
