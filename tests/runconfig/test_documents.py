"""What is written about the format is true: every example is read, and every field has one."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from runstream.cli.config_commands import checked_json
from runstream.evaluation.files import ConfigName, parse_file
from runstream.runconfig import fields
from runstream.runconfig.parse import parse_config
from runstream.runconfig.problems import ConfigError
from runstream.runconfig.refs import RefContext
from runstream.runconfig.resolve import run_configs

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "run-config.md"
LINES = r"((?:(?!```)[^\n]*\n)*)```$"
EXAMPLES = re.findall(rf"^```yaml ([a-z-]+)\n{LINES}", REFERENCE.read_text(), re.MULTILINE)
SHOWN = re.findall(rf"^```yaml ([a-z-]+)\n{LINES}\n\n```json becomes\n{LINES}", REFERENCE.read_text(), re.MULTILINE)
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


@pytest.mark.parametrize(("kind", "example", "shown"), SHOWN)
def test_every_example_becomes_what_is_shown(kind: str, example: str, shown: str) -> None:
    context = RefContext(ref_type="branch", branch="main", ref="refs/heads/main")
    runs = run_configs(parse_config(whole(kind, example)), context, Names())
    found: Any = json.loads(json.dumps(checked_json("config.yml", context, runs, [], [])["runs"]))
    if kind != "file":
        (found,) = found
    if kind in ("task", "step"):
        (found,) = found["tasks"].values()
    if kind == "step":
        (found,) = found["steps"]
    assert part(found, json.loads(shown)) == json.loads(shown)


class Names(dict[str, str]):
    """Variables by their names."""

    def get(self, name: str, default: object = None) -> str:
        return f"{{from_variable: {name}}}"

    __getitem__ = get


def part(found: Any, shown: Any) -> Any:
    """What of the found is shown."""
    if isinstance(shown, dict) and isinstance(found, dict):
        return {key: part(found.get(key), value) for key, value in shown.items()} if shown else found
    if isinstance(shown, list) and isinstance(found, list) and len(found) == len(shown):
        return [part(one, other) for one, other in zip(found, shown, strict=True)]
    return found


def test_every_field_has_an_example_with_what_becomes_of_it() -> None:
    examples = "\n".join(example for _, example, _ in SHOWN)
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
