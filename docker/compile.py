"""Compile every module that Runstream loads, and no other: its image has no room for those that no process loads."""

import contextlib
import importlib
import pkgutil

import runstream

for module in pkgutil.walk_packages(runstream.__path__, "runstream."):
    if not module.name.endswith("__main__"):
        # Migrations are loaded by alembic alone.
        with contextlib.suppress(Exception):
            importlib.import_module(module.name)
