"""What the conditions of routes look at in a request, told before anything is tokenized."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_manager.catalog import RouteConditions
from mlx_manager.ir import Caller, ChatPrompt, GenerationRequest, Prompt, estimate_tokens


@dataclass(frozen=True)
class Traits:
    """What is known of a request. `num_tokens` is an estimate."""

    num_tokens: int = 0
    has_images: bool = False
    """Or videos."""
    needs_tools: bool = False
    user: str | None = None
    key: str | None = None
    """As `Caller.key_label`."""
    prompt: Prompt | None = None
    """None where there is no conversation."""

    def unmet(self, conditions: RouteConditions) -> str | None:
        """The first condition that does not hold, for people; None when all do."""
        least = conditions.longer_than_tokens
        if least is not None and self.num_tokens <= least:
            return f"the prompt is estimated at {self.num_tokens} tokens, not more than {least}"
        for wanted, has, what in (
            (conditions.has_images, self.has_images, "images"),
            (conditions.needs_tools, self.needs_tools, "tools"),
        ):
            if wanted is not None and wanted != has:
                return f"it {'has' if has else 'has no'} {what}"
        if conditions.users and self.user not in conditions.users:
            return f"it is not for {self.user or 'a user without a name'}"
        if conditions.keys and self.key not in conditions.keys:
            return f"it is not for {'the key ' + self.key if self.key else 'requests without a key'}"
        return None


def traits_of(request: object, caller: Caller) -> Traits:
    """The traits of a request; of one that generates nothing, only who asks."""
    if not isinstance(request, GenerationRequest):
        return Traits(user=caller.user_name, key=caller.key_label)
    prompt = request.prompt
    chat = prompt if isinstance(prompt, ChatPrompt) else None
    return Traits(
        num_tokens=estimate_tokens(prompt),
        has_images=chat is not None and any(message.visuals for message in chat.messages),
        needs_tools=chat is not None and bool(chat.tools),
        user=caller.user_name,
        key=caller.key_label,
        prompt=prompt,
    )
