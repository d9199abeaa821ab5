"""What clients write into a prompt that is no part of the conversation and changes with every request.

Claude Code begins its system prompt with a line for the provider's billing, and ends it, or a turn, with how many
tokens are left of a budget. A prompt that held these would never begin like the one before it, and nothing of it would
be found in the prefix cache. Neither is an instruction to the model, so they are left out of the prompt.
"""

from __future__ import annotations

import re

_BILLING = re.compile(r"\A\s*x-anthropic-billing-header:[^\n]*\n?")
_BUDGET = re.compile(
    r"\s*<total_tokens>\s*[\d,_]+ tokens left\s*</total_tokens>"
    r"|\s*<budget:token_budget>\s*[\d,_]+\s*</budget:token_budget>"
    r"|\s*<(system_warning|system-reminder)>\s*Token usage: [\d,_]+/[\d,_]+; [\d,_]+ remaining\s*</\1>"
)
_HINTS = ("tokens left", "token_budget", "Token usage:")


def without_billing(text: str) -> str:
    """A block of a system prompt without the line for billing that it may begin with."""
    return _BILLING.sub("", text, count=1)


def without_budget(text: str) -> str:
    """A block of text without the marks of token budgets."""
    if not any(hint in text for hint in _HINTS):
        return text
    return _BUDGET.sub("", text)
