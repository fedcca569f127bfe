"""What is written about the format is true: every example is read, and every field has one."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from runstream.evaluation import ConfigName, parse_file
from runstream.runconfig import ConfigError, RefContext, fields, parse_config, run_configs

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "run-config.md"
EXAMPLES = re.findall(r"^```yaml ([a-z-]+)\n(.*?)^```$", REFERENCE.read_text(), re.DOTALL | re.MULTILINE)
PROGRAMS = re.findall(r"^```(jsonnet|starlark) file\n(.*?)^```$", REFERENCE.read_text(), re.DOTALL | re.MULTILINE)
STEP = "runs:\n- name: r\n  tasks:\n  - name: t\n    runtime: {type: host}\n    steps:\n"
AROUND = {"file": "", "run": "runs:\n", "task": "runs:\n- name: r\n  tasks:\n", "step": STEP, "refused-step": STEP}


def whole(kind: str, example: str) -> str:
    if kind == "file":
        return example
    indented = textwrap.indent(example, "        ")
    return f"{AROUND[kind]}      -{indented[7:]}"


@pytest.mark.parametrize(("kind", "example"), EXAMPLES)
def test_every_example_is_what_it_says(kind: str, example: str) -> None:
    if kind.startswith("refused"):
        with pytest.raises(ConfigError):
            parse_config(whole(kind, example))
    else:
        parse_config(whole(kind, example))


@pytest.mark.parametrize(("language", "program"), PROGRAMS)
def test_every_program_makes_what_the_text_says(language: str, program: str) -> None:
    name: ConfigName = "config.jsonnet" if language == "jsonnet" else "config.star"
    (run,) = parse_file(name, program, RefContext(ref_type="branch", branch="main")).runs
    assert (run.name, [task.name for task in run.tasks]) == ("test main", ["python 3.11", "python 3.12"])


def test_every_field_has_an_example() -> None:
    examples = "\n".join(example for _, example in EXAMPLES)
    tables = [value for name, value in vars(fields).items() if name.isupper() and isinstance(value, dict)]
    known = {field for table in (*tables, *fields.STEPS.values()) for field in table}
    assert {field for field in known if not re.search(rf"\b{field}:", examples)} == set()


def test_the_message_in_the_reference_is_ours() -> None:
    text = "runs:\n- name: r\n  tasks:\n  - name: t\n    runtime:\n      type: host\n\n\n    step: []\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert caught.value.message in REFERENCE.read_text()


def test_this_projects_own_pipeline_is_read() -> None:
    parsed = parse_config((ROOT / ".runstream" / "config.yml").read_bytes())
    (run,) = run_configs(parsed, RefContext(ref_type="branch", branch="main"), {})
    assert {name: task.level for name, task in run.config.tasks.items()} == {
        "checkout": 0, "lint": 1, "types": 1, "unit tests": 1, "build wheel": 2, "install": 3,
    }  # fmt: skip
    assert all(task.runtime.type == "host" for task in run.config.tasks.values())
