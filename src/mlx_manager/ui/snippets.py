"""How the clients are told about this server, for those of them whose API it serves."""

from __future__ import annotations

from collections.abc import Collection


def client_snippets(base: str, model: str, api_paths: Collection[str]) -> dict[str, str]:
    """By client: what to paste. `base` is the server's address without a path."""
    snippets = {
        "curl": _CURL.format(base=base, model=model),
        "Python": _PYTHON.format(base=base, model=model),
    }
    if "/v1/messages" in api_paths:
        snippets["Claude Code"] = _CLAUDE_CODE.format(base=base, model=model)
    if "/v1/responses" in api_paths:
        snippets["Codex"] = _CODEX.format(base=base, model=model)
    return snippets


_CURL = """curl {base}/v1/chat/completions -H "Content-Type: application/json" -d '{{
  "model": "{model}",
  "messages": [{{"role": "user", "content": "What is the capital of France?"}}],
  "temperature": 0
}}'"""

_PYTHON = """from openai import OpenAI

client = OpenAI(base_url="{base}/v1", api_key="unused")
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "What is the capital of France?"}}],
    temperature=0,
)
print(answer.choices[0].message.content)"""

_CLAUDE_CODE = """export ANTHROPIC_BASE_URL={base}
export ANTHROPIC_AUTH_TOKEN=unused
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
