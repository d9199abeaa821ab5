"""The revisions of the schema, run at start. A released revision is never edited: a new one follows it."""

NEWEST = "0008"
"""The revision that this version works with; known here so that a database that has it is opened without Alembic."""
