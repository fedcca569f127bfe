"""Where the cases with known answers are, and how a test asks for them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("RUNSTREAM_CONFORMANCE", Path(__file__).parents[3] / "shared" / "conformance"))


def cases(file: str, *ops: str) -> pytest.MarkDecorator:
    """Parametrise a test with `case`, for each case of the file (of these operations)."""
    path = FOLDER / file
    if not path.is_file():
        reason = f"the conformance cases are not at {FOLDER} (set RUNSTREAM_CONFORMANCE)"
        return pytest.mark.parametrize("case", [pytest.param({}, marks=pytest.mark.skip(reason=reason), id="absent")])
    found: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    chosen = [case for case in found if not ops or case.get("op") in ops]
    return pytest.mark.parametrize("case", [pytest.param(case, id=str(case["name"])) for case in chosen])
