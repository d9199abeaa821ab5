"""Takes what looks like a secret out of text that is kept or sent on."""

from __future__ import annotations

import re

_SECRETS = re.compile(
    r"""(?x)
    \b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}                # OpenAI's, Anthropic's and those made after them
    | \bmlxm?[-_][A-Za-z0-9_-]{16,}                  # ours
    | \bhf_[A-Za-z0-9]{16,}                          # Hugging Face
    | \bgh[pousr]_[A-Za-z0-9]{20,}                   # GitHub
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                  # AWS
    | \beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}   # JWT
    | (?i:bearer\s+)[A-Za-z0-9._~+/-]{12,}=*
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    """,
    re.DOTALL,
)
HIDDEN = "[hidden]"


def scrub(text: str) -> str:
    """`text` with `[hidden]` in place of keys and tokens of well-known forms."""
    return _SECRETS.sub(HIDDEN, text)
