"""The tables of visual search's collections."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and their indexes."""
    op.create_table(
        "retinue_collections",
        sa.Column("key", sa.Integer, primary_key=True, autoincrement=True),
        *_texts(("tenant", 64), ("name", 64), ("folder", 64)),
        *_numbers("created_us", "generation", "next_number", "count"),
        sa.UniqueConstraint("tenant", "name", name="retinue_collections_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "retinue_spaces",
        sa.Column("key", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("collection", sa.Integer, nullable=False),
        *_texts(("model", 64), ("version", 64)),
        *(
            sa.Column(name, sa.Integer, nullable=False)
            for name in ("image_dim", "text_dim", "grid_rows", "grid_columns", "token_bytes")
        ),
        *_numbers("count", "next_slot", "floor"),
        sa.UniqueConstraint("collection", "model", "version", name="retinue_spaces_model"),
        sqlite_autoincrement=True,
    )
    _items()
    for name in ("retinue_vectors", "retinue_dropped"):
        more = _numbers("number") if name == "retinue_vectors" else []
        op.create_table(
            name,
            sa.Column("space", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("slot", sa.BigInteger, primary_key=True, autoincrement=False),
            *more,
            *_numbers("generation"),
        )
        op.create_index(f"{name}_generation", name, ["space", "generation"])
    op.create_index("retinue_vectors_number", "retinue_vectors", ["space", "number"])
    op.create_table(
        "retinue_fields",
        sa.Column("collection", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(128), primary_key=True),
        *_texts(("kind", 16)),
    )
    op.create_table(
        "retinue_failures",
        sa.Column("collection", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), primary_key=True),
        *_texts(("source", 1024)),
        sa.Column("path", sa.Text, nullable=False),
        *_texts(("code", 64)),
        sa.Column("message", sa.Text, nullable=False),
    )


def _items() -> None:
    table = "retinue_items"
    op.create_table(
        table,
        sa.Column("collection", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        *_texts(("id", 512), ("source", 1024)),
        sa.Column("path", sa.Text, nullable=False),
        *_texts(("sha256", 64)),
        *_numbers("size", "mtime_us"),
        *_texts(("etag", 255)),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        *_numbers("added_us"),
        sa.Column("meta", sa.Text, nullable=False),
        sa.Column("pdq", sa.LargeBinary, nullable=True),
        *_texts(("thumbnail", 80)),
        *_numbers("duplicate_of", "generation"),
        sa.UniqueConstraint("collection", "id", name="retinue_items_id"),
    )
    op.create_index("retinue_items_generation", table, ["collection", "generation"])
    op.create_index("retinue_items_sha256", table, ["collection", "sha256"])
    op.create_index("retinue_items_duplicate", table, ["collection", "duplicate_of"])


def _texts(*columns: tuple[str, int]) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(length), nullable=False) for name, length in columns]


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]
