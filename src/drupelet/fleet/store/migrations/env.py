"""Alembic's entry: migrations run inside the transaction that `store.engine.migrate` opened."""

from __future__ import annotations

from alembic import context

from drupelet.fleet.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True,
    compare_type=True, transaction_per_migration=False,
)  # fmt: skip
context.run_migrations()
