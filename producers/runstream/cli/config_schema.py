"""`runstream config schema`: what editors need to help with a configuration file."""

from __future__ import annotations

import sys

from runstream.runconfig.json_schema import schema_text


def print_schema() -> int:
    """Print the JSON Schema of configuration files, for editors."""
    sys.stdout.write(schema_text())
    return 0
