"""Run by Alembic: takes the connection that ``ebhpc.store.schema`` hands over, or a URL with ``-x url=…``."""

from __future__ import annotations

from alembic import context

from ebhpc.store.engine import Store
from ebhpc.store.tables import metadata


def _run(connection: object) -> None:
    context.configure(
        connection=connection,  # type: ignore[arg-type]
        target_metadata=metadata,
        transactional_ddl=False,
        render_as_batch=True,
    )
    context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    _run(handed_over)
else:
    with Store(context.get_x_argument(as_dictionary=True)["url"]).write("alembic") as opened:
        _run(opened)
