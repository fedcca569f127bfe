"""starlark_test.json: how what `main` returns becomes JSON.

Here `main` has to return a dict, so the value of a case is put into one.
"""

from __future__ import annotations

from typing import Any

import pytest

from runstream.evaluation.program import EvaluationError, evaluate

from .cases import cases


@cases("starlark_test.json")
def test_starlark_json(case: dict[str, Any]) -> None:
    program = f"def main(ctx):\n  return {{'value': {case['starlark_repr']}}}\n"
    if case["expect"]["error"] is not None:
        with pytest.raises(EvaluationError, match="is not a string"):
            evaluate(program, "starlark", "config.star", {})
        return
    assert evaluate(program, "starlark", "config.star", {}) == f'{{"value": {case["expect"]["json_text"]}}}'
