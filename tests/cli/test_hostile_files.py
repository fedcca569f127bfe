"""`runstream config check` of a file that means harm: refused with a sentence, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runstream.evaluation.files import NAMES

MOST_BYTES = 500 << 20
MEASURED = """
import resource, sys
from runstream.service.main import main
try:
    main()
except SystemExit as ended:
    # Not RUSAGE_SELF: that begins with the memory of the process that started this one.
    with open("/proc/self/status") as status:
        own = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
    raise
"""
STAR = b"def main(ctx):\n"
FILES: dict[str, tuple[str, bytes, str]] = {
    **{f"10 MiB of {name}": (name, b" " * (10 << 20), "larger than") for name in NAMES},
    **{f"no UTF-8 in {name}": (name, b"\xff\xfe\n", "not UTF-8 text") for name in NAMES},
    "endless recursion": ("config.jsonnet", b"local f(x) = f(x + 1) + 1; f(1)", "stack"),
    "an endless loop": (
        "config.star",
        STAR + b"  for a in range(1 << 30):\n    for b in range(1 << 30):\n      pass\n",
        "than",
    ),
    "1 GiB of output": ("config.star", STAR + b"  return {'a': ['x' * (1 << 20)] * 1024}", "than"),
    "deep nesting": ("config.yml", b"[" * 1_000_000, "nested deeper"),
    "100,000 tasks": ("config.yml", b"runs: [{name: r, tasks: [" + b"{}," * 100_000 + b"]}]", "values"),
    "a billion aliases": (
        "config.yml",
        b"x0: &a0 [x]\n"
        + b"".join(b"x%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)),
        "aliases",
    ),
    "an expression that needs much memory": ("config.yml", b"runs: [{name: r, when: {ref: '/(a{99}){99}/'}}]", "RE2"),
}


@pytest.mark.parametrize("case", FILES)
def test_it_is_refused_in_bounded_memory(case: str, tmp_path: Path) -> None:
    name, content, said = FILES[case]
    (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "config", "check", name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert int(done.stdout.splitlines()[-1]) < MOST_BYTES >> 10
