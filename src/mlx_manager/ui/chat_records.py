"""Conversations as the database keeps them, and back again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mlx_manager.ir import Role
from mlx_manager.storage.conversations import ConversationHead, StoredConversation, StoredTurn
from mlx_manager.ui.attachments import Attachment
from mlx_manager.ui.chat_parameters import ChatParameters
from mlx_manager.ui.conversation import CallState, Conversation, ReplyFigures, Round, Turn, TurnState


class _KeptFile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    media_type: str
    digest: str


class _KeptTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a turn."""

    role: Role
    said: str = ""
    files: tuple[_KeptFile, ...] = ()
    rounds: tuple[Round, ...] = ()
    model: str | None = None
    answered_by: str | None = None
    fallback_reason: str | None = None
    state: TurnState = TurnState.DONE
    error: str | None = None
    figures: ReplyFigures = ReplyFigures()


def store_conversation(conversation: Conversation, turns: Iterable[Turn]) -> StoredConversation:
    """Its head, and those of its turns that are given."""
    kept = list(turns)
    return StoredConversation(
        head=ConversationHead(
            id=conversation.id,
            title=conversation.title,
            created_unix_s=int(conversation.created_unix_s),
            changed_unix_s=int(conversation.changed_unix_s),
        ),
        options=msgspec.to_builtins(conversation.parameters),
        turns=[_store_turn(turn) for turn in kept],
        files={file.digest: file.content for turn in kept for file in turn.attachments},
    )


def restore_conversation(user_id: int, stored: StoredConversation) -> Conversation:
    """As it was. A reply that was being written when the server ended has stopped there."""
    conversation = Conversation(user_id, stored.head.id)
    conversation.title = stored.head.title
    conversation.created_unix_s = stored.head.created_unix_s
    conversation.changed_unix_s = stored.head.changed_unix_s
    conversation.parameters = msgspec.convert(stored.options, ChatParameters)
    turns = {0: conversation.root}
    for record in stored.turns:
        if record.parent is None:
            conversation.root.chosen = record.chosen
            continue
        turn = _restore_turn(record, stored.files)
        turn.parent = turns[record.parent]
        turns[record.number] = turn
    conversation.restore(iter(list(turns.values())[1:]))
    return conversation


def words_of(body: Mapping[str, Any]) -> str:
    """What a stored turn says."""
    kept = msgspec.convert(body, _KeptTurn)
    return kept.said or "\n".join(one.text for one in kept.rounds)


def _store_turn(turn: Turn) -> StoredTurn:
    body = _KeptTurn(
        role=turn.role,
        said=turn.said,
        files=tuple(
            _KeptFile(name=file.name, media_type=file.media_type, digest=file.digest) for file in turn.attachments
        ),
        rounds=tuple(turn.rounds),
        model=turn.model,
        answered_by=turn.answered_by,
        fallback_reason=turn.fallback_reason,
        state=turn.state,
        error=turn.error,
        figures=turn.figures,
    )
    return StoredTurn(
        number=turn.number,
        parent=None if turn.parent is None else turn.parent.number,
        chosen=turn.chosen,
        words=" ".join([turn.text, *(file.name for file in turn.attachments)]),
        body=msgspec.to_builtins(body),
    )


def _restore_turn(record: StoredTurn, files: Mapping[str, bytes]) -> Turn:
    kept = msgspec.convert(record.body, _KeptTurn)
    is_broken_off = kept.state is TurnState.RUNNING
    return Turn(
        number=record.number,
        role=kept.role,
        said=kept.said,
        attachments=tuple(Attachment(file.name, file.media_type, files[file.digest]) for file in kept.files),
        rounds=_broken_off(kept.rounds) if is_broken_off else list(kept.rounds),
        model=kept.model,
        answered_by=kept.answered_by,
        fallback_reason=kept.fallback_reason,
        state=TurnState.STOPPED if is_broken_off else kept.state,
        error=kept.error,
        figures=kept.figures,
        chosen=record.chosen,
    )


def _broken_off(rounds: Iterable[Round]) -> list[Round]:
    kept = list(rounds)
    for use in (use for one in kept for use in one.calls):
        if use.state in (CallState.WRITTEN, CallState.ASKED, CallState.RUNNING):
            use.state = CallState.FAILED
    return kept
