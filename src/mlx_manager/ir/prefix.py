"""How much of a prompt the prefix cache had, and why it had no more."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class PrefixReason(StrEnum):
    """Why the match with the prefix cache ended where it did."""

    COMPLETE = "complete"
    """It did not end early: the last token of a prompt is always computed, all before it was found."""
    CONTINUED = "continued"
    """The closest earlier conversation ended there; the rest is new."""
    UNSEEN = "unseen"
    """No earlier prompt that is remembered shares any text with this one."""
    TEXT = "text"
    """The text differs there from the closest earlier prompt."""
    ANSWER = "answer"
    """The text differs there from an earlier answer: it was not sent back as it was generated."""
    TEMPLATE = "template"
    """It differs before the first message's text, in what the chat template writes there."""
    EVICTED = "evicted"
    """An earlier conversation agrees further, but blocks of it had to make room."""
    NO_CHECKPOINT = "no_checkpoint"
    """The blocks are there, but no copy of the recurrent layers' state to go on from behind the last of them."""
    UNHASHED_TAIL = "unhashed_tail"
    """The agreement ends inside a block, and that part of a block could not be copied."""
    PENDING = "pending"
    """An earlier prompt that agrees further is still being computed."""
    FORGOTTEN = "forgotten"
    """What was matched belongs to a conversation too old to be remembered: nobody knows where it differs."""
    UNCACHED = "uncached"
    """The model is served without a prefix cache."""


class PrefixReport(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt held against the prefix cache and against the earlier prompts and answers that are remembered."""

    reason: PrefixReason
    num_prompt_tokens: int
    num_matched_tokens: int
    """Leading tokens whose keys and values, or states, were found."""
    num_agreed_tokens: int
    """Leading tokens shared with the closest earlier conversation, so also the position of the first that differs."""
