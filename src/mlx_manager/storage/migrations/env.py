"""What Alembic runs: the revisions, in the transaction of the connection that `storage.database` hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
