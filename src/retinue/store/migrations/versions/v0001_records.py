"""The records' table."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and its indexes."""
    record_id = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
    op.create_table(
        "retinue_records",
        sa.Column("id", record_id, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        *(
            sa.Column(name, sa.String(255), nullable=False)
            for name in ("app", "model", "version", "source")
        ),
        sa.Column("code", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        *(
            sa.Column(name, sa.Integer, nullable=False)
            for name in ("items", "width", "height", "batch_size", "queue_depth")
        ),
        sa.Column("input_sha256", sa.String(255), nullable=False),
        sa.Column("blob", sa.String(255), nullable=False),
        sa.Column("meta", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=True),
        sa.Column("embedding", sa.LargeBinary, nullable=True),
    )
    op.create_index("retinue_records_time", "retinue_records", ["created_us", "id"])
    op.create_index("retinue_records_model", "retinue_records", ["model", "created_us"])
    op.create_index("retinue_records_source", "retinue_records", ["source", "created_us"])
    failed = sa.text("code <> ''")
    op.create_index(
        "retinue_records_code",
        "retinue_records",
        ["code", "created_us"],
        sqlite_where=failed,
        postgresql_where=failed,
    )
