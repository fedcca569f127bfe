"""Alembic's scripts, run on a connection. Imported only where there is something to be moved."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from runstream.database.revisions import HEAD, script_location


def move(connection: Connection, target: str) -> None:
    """Bring the schema of the connection up to `head`, or down to any other target."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if target == HEAD:
        command.upgrade(config, HEAD)
    else:
        command.downgrade(config, target)
