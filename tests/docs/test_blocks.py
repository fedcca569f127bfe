"""Code blocks are valid in their language, including those that are not run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from runstream.runconfig.parse import parse_config
from runstream.service.configuration import load_settings
from runstream.service.main import app
from tests.docs.blocks import UNTESTED, Block, all_blocks
from tests.kubernetes_api import check

BLOCKS = all_blocks()
KINDS = {
    "sh": {"run", "untested"},
    "python": {"run", "untested"},
    "yaml": {"file", "settings", "cluster"},
    "yml": {"file"},
    "toml": {"settings"},
    "conf": {"checked"},
    "text": {"output", ""},
    "json": {""},
    "jsonnet": {"file"},
    "starlark": {"file"},
}


_COMMAND = re.compile(r"""(?:^|[\s(])(?:\.venv/bin/)?runstream ((?:[^|)"'\n]|"[^"]*"|'[^']*')*)""")


def of(what: str, *languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.what == what and (not languages or block.language in languages)]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.what in KINDS[block.language]
    assert (block.what == "untested") == block.text.startswith(UNTESTED)


@pytest.mark.parametrize("block", of("file", "yaml"), ids=str)
def test_run_configurations_are_read(block: Block) -> None:
    assert parse_config(block.text).runs


@pytest.mark.parametrize("block", of("settings"), ids=str)
def test_settings_files_are_read(block: Block, tmp_path: Path) -> None:
    file = tmp_path / f"settings.{block.language}"
    file.write_text(block.text)
    load_settings({}, {}, file)


@pytest.mark.parametrize("block", of("checked", "conf"), ids=str)
def test_configurations_of_nats_are_read(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "nats.conf"
    file.write_text(block.text.replace("/var/lib/nats", str(tmp_path)))
    server = Path(sys.executable).with_name("nats-server")
    done = subprocess.run([server, "-t", "-c", file], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", of("cluster", "yaml"), ids=str)
def test_objects_of_kubernetes_fit_the_published_schemas(block: Block) -> None:
    for each in YAML(typ="safe").load_all(block.text):
        check(f"{each['kind'].lower()}s", each)


@pytest.mark.parametrize("block", of("", "json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


def commands(block: Block) -> Iterator[list[str]]:
    """The words behind `runstream` of each command in a block."""
    for line in re.sub(r"\\\n", " ", block.text).splitlines():
        if not line.startswith(("#", "docker ", "kubectl ")):
            yield from (shlex.split(found) for found in _COMMAND.findall(line))


@pytest.mark.parametrize("block", [*of("run", "sh"), *of("untested", "sh")], ids=str)
def test_commands_exist_with_these_options(block: Block) -> None:
    for words in commands(block):
        _, bound, _ = app.meta.parse_args(words, print_error=False, exit_on_error=False)
        if "tokens" in bound.arguments:
            app.parse_args(bound.arguments["tokens"], print_error=False, exit_on_error=False)


def test_commands_are_found() -> None:
    found = [words for block in [*of("run", "sh"), *of("untested", "sh")] for words in commands(block)]
    assert ["stop"] in found
    assert len(found) >= 30


def test_a_unit_of_systemd_starts_a_command_that_exists() -> None:
    started = [line for block in BLOCKS for line in block.text.splitlines() if line.startswith("ExecStart=")]
    assert started
    for line in started:
        program, *words = shlex.split(line.removeprefix("ExecStart="))
        assert program.endswith("/bin/runstream")
        app.parse_args(words, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("document", sorted({block.document for block in BLOCKS}), ids=lambda path: path.stem)
def test_a_document_sets_the_variables_of_a_service_before_it_uses_them(document: Path) -> None:
    known = False
    for block in (block for block in BLOCKS if block.document == document and block.language in ("sh", "python")):
        known = known or "runstream env" in block.text or "export RUNSTREAM_URL" in block.text
        assert known or not re.search(r"[$\[{\"]+RUNSTREAM_(URL|TOKEN)", block.text), block
