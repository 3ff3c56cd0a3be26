"""Alembic migrations of the records' database; `retinue.store.schema.migrate` runs them."""
