"""Run by Alembic for each migration, on the connection and in the transaction of its caller."""

from alembic import context

from retinue.store.schema import VERSION_TABLE
from retinue.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
