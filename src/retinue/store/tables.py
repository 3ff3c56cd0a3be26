"""The tables that the code reads and writes.

The migrations are how a database gets there; a test checks that both describe the same.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

# Ordering by id must not depend on the server's language.
Id = String(255).with_variant(String(255, collation="C"), "postgresql")

metadata = MetaData()
records = Table(
    "retinue_records",
    metadata,
    Column("id", Id, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("app", String(255), nullable=False),
    Column("model", String(255), nullable=False),
    Column("version", String(255), nullable=False),
    Column("source", String(255), nullable=False),
    Column("code", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("items", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("queue_depth", Integer, nullable=False),
    Column("input_sha256", String(255), nullable=False),
    Column("blob", String(255), nullable=False),
    Column("meta", Text, nullable=False),
    Column("value", LargeBinary, nullable=True),
    Column("embedding", LargeBinary, nullable=True),
)
FAILED = literal_column("code") != literal_column("''")
Index("retinue_records_time", records.c.created_us, records.c.id)
Index("retinue_records_model", records.c.model, records.c.created_us)
Index("retinue_records_source", records.c.source, records.c.created_us)
Index(
    "retinue_records_code",
    records.c.code,
    records.c.created_us,
    sqlite_where=FAILED,
    postgresql_where=FAILED,
)

collections = Table(
    "retinue_collections",
    metadata,
    Column("key", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("folder", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("next_number", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    UniqueConstraint("tenant", "name", name="retinue_collections_name"),
    sqlite_autoincrement=True,
)
spaces = Table(
    "retinue_spaces",
    metadata,
    Column("key", Integer, primary_key=True, autoincrement=True),
    Column("collection", Integer, nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("image_dim", Integer, nullable=False),
    Column("text_dim", Integer, nullable=False),
    Column("grid_rows", Integer, nullable=False),
    Column("grid_columns", Integer, nullable=False),
    Column("token_bytes", Integer, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("next_slot", BigInteger, nullable=False),
    Column("floor", BigInteger, nullable=False),
    UniqueConstraint("collection", "model", "version", name="retinue_spaces_model"),
    sqlite_autoincrement=True,
)
items = Table(
    "retinue_items",
    metadata,
    Column("collection", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(512), nullable=False),
    Column("source", String(1024), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_us", BigInteger, nullable=False),
    Column("etag", String(255), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("added_us", BigInteger, nullable=False),
    Column("meta", Text, nullable=False),
    Column("pdq", LargeBinary, nullable=True),
    Column("thumbnail", String(80), nullable=False),
    Column("duplicate_of", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    UniqueConstraint("collection", "id", name="retinue_items_id"),
)
Index("retinue_items_generation", items.c.collection, items.c.generation)
Index("retinue_items_sha256", items.c.collection, items.c.sha256)
Index("retinue_items_duplicate", items.c.collection, items.c.duplicate_of)
vectors = Table(
    "retinue_vectors",
    metadata,
    Column("space", Integer, primary_key=True, autoincrement=False),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
)
Index("retinue_vectors_generation", vectors.c.space, vectors.c.generation)
Index("retinue_vectors_number", vectors.c.space, vectors.c.number)
dropped = Table(
    "retinue_dropped",
    metadata,
    Column("space", Integer, primary_key=True, autoincrement=False),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
)
Index("retinue_dropped_generation", dropped.c.space, dropped.c.generation)
fields = Table(
    "retinue_fields",
    metadata,
    Column("collection", Integer, primary_key=True, autoincrement=False),
    Column("name", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),
)
failures = Table(
    "retinue_failures",
    metadata,
    Column("collection", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), primary_key=True),
    Column("source", String(1024), nullable=False),
    Column("path", Text, nullable=False),
    Column("code", String(64), nullable=False),
    Column("message", Text, nullable=False),
)
