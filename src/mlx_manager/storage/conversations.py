"""The conversations of accounts in the database: every question that is asked here names whose they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.errors import NotFound
from mlx_manager.storage.database import Database
from mlx_manager.storage.tables import AttachmentRow, ConversationRow, TurnRow, UserRow

_MOST_TERMS = 8


class ConversationHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of conversations shows."""

    id: str
    title: str
    created_unix_s: int
    changed_unix_s: int


class StoredTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn. `number` counts within its conversation; 0 is the root, which nobody said."""

    number: int
    parent: int | None
    """The number of the turn that it follows; None for the root."""
    chosen: int
    """Which of the turns that follow it is shown."""
    words: str
    """What is searched."""
    body: dict[str, Any]
    """All that is said and shown, as JSON."""


class StoredConversation(msgspec.Struct, frozen=True, kw_only=True):
    """All of one conversation, turns in the order of their numbers."""

    head: ConversationHead
    options: dict[str, Any]
    turns: Sequence[StoredTurn]
    files: Mapping[str, bytes]
    """What is attached to its turns, by the SHA-256 of the content in hexadecimal digits."""


class FoundConversation(msgspec.Struct, frozen=True, kw_only=True):
    """One that a search found: by its title, or by the words of a turn."""

    head: ConversationHead
    turn: dict[str, Any] | None = None
    """The body of the first turn that has the words; None where the title has them."""


class ConversationStore:
    """Reads and writes conversations. Everything raises `StorageUnavailable` while the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heads(self, user_id: int, *, limit: int) -> list[ConversationHead]:
        """Those of one account, the one that was changed last first."""
        wanted = _of(user_id).order_by(col(ConversationRow.changed_unix_s).desc(), col(ConversationRow.id)).limit(limit)
        async with self._database.reading() as session:
            return [_head(row) for row in (await session.exec(wanted)).all()]

    async def search(self, user_id: int, words: str, *, limit: int) -> list[FoundConversation]:
        """Those whose title, or one of whose turns, has all of `words`, in any case; the last changed first."""
        terms = _searched(words).split()[:_MOST_TERMS]
        if not terms:
            return [FoundConversation(head=head) for head in await self.heads(user_id, limit=limit)]
        in_title = _has_all(col(ConversationRow.words), terms)
        in_turn = select(TurnRow.conversation_id).where(_has_all(col(TurnRow.words), terms))
        wanted = (
            _of(user_id)
            .where(in_title | col(ConversationRow.id).in_(in_turn))
            .order_by(col(ConversationRow.changed_unix_s).desc(), col(ConversationRow.id))
            .limit(limit)
        )
        async with self._database.reading() as session:
            rows = (await session.exec(wanted)).all()
            by_turn = [row.id for row in rows if not all(term in row.words for term in terms)]
            bodies = await _first_bodies(session, by_turn, terms)
        return [FoundConversation(head=_head(row), turn=bodies.get(row.id)) for row in rows]

    async def read(self, user_id: int, conversation_id: str) -> StoredConversation:
        """All of one. Raises `NotFound`, also where it is somebody else's."""
        async with self._database.reading() as session:
            row = (await session.exec(_of(user_id).where(ConversationRow.id == conversation_id))).first()
            if row is None:
                raise NotFound("There is no such conversation: it may have been deleted.")
            of_it = TurnRow.conversation_id == conversation_id
            turns = (await session.exec(select(TurnRow).where(of_it).order_by(col(TurnRow.number)))).all()
            files = (
                await session.exec(select(AttachmentRow).where(AttachmentRow.conversation_id == conversation_id))
            ).all()
        return StoredConversation(
            head=_head(row),
            options=row.options,
            turns=[msgspec.convert(turn.model_dump(exclude={"conversation_id"}), StoredTurn) for turn in turns],
            files={file.digest: file.content for file in files},
        )

    async def write(self, user_id: int, changed: StoredConversation) -> None:
        """Keep a conversation, and those of its turns and files that are given. Turns that are there are replaced.

        Nothing is kept of an account that is gone.
        """
        head = changed.head
        async with self._database.writing() as session:
            if await session.get(UserRow, user_id) is None:
                return
            row = (await session.exec(_of(user_id).where(ConversationRow.id == head.id))).first()
            if row is None:
                row = ConversationRow(id=head.id, user_id=user_id, title="", words="", options={})
                row.created_unix_s = head.created_unix_s
            row.title = _storable(head.title)
            row.words = _searched(head.title)
            row.options = changed.options
            row.changed_unix_s = head.changed_unix_s
            session.add(row)
            await session.flush()
            for turn in changed.turns:
                fields = msgspec.structs.asdict(turn) | {"words": _searched(turn.words)}
                await session.merge(TurnRow(conversation_id=head.id, **fields))
            kept = select(AttachmentRow.digest).where(AttachmentRow.conversation_id == head.id)
            known = set((await session.exec(kept)).all()) if changed.files else set()
            for digest, content in changed.files.items():
                if digest not in known:
                    session.add(AttachmentRow(conversation_id=head.id, digest=digest, content=content))

    async def remove(self, user_id: int, conversation_id: str) -> None:
        """Delete one with all that belongs to it; nothing where there is none of that account."""
        async with self._database.writing() as session:
            await session.exec(
                delete(ConversationRow).where(
                    col(ConversationRow.id) == conversation_id, col(ConversationRow.user_id) == user_id
                )
            )


def _of(user_id: int) -> Any:
    return select(ConversationRow).where(ConversationRow.user_id == user_id)


async def _first_bodies(
    session: AsyncSession, conversation_ids: Collection[str], terms: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The body of the first turn of each that has all terms."""
    wanted = (
        select(TurnRow)
        .where(col(TurnRow.conversation_id).in_(conversation_ids), _has_all(col(TurnRow.words), terms))
        .order_by(col(TurnRow.number).desc())
    )
    return {row.conversation_id: row.body for row in (await session.exec(wanted)).all()}


def _has_all(column: Any, terms: Sequence[str]) -> ColumnElement[bool]:
    return and_(*(column.contains(term, autoescape=True) for term in terms))


def _searched(words: str) -> str:
    """As it is compared: databases do not agree about upper and lower case beyond ASCII, so it is done here."""
    return _storable(words).casefold()


def _storable(words: str) -> str:
    """Without what databases do not take as text: NUL, and halves of a character."""
    return words.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _head(row: ConversationRow) -> ConversationHead:
    return ConversationHead(
        id=row.id, title=row.title, created_unix_s=row.created_unix_s, changed_unix_s=row.changed_unix_s
    )
