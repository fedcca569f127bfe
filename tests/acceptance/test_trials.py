"""Problems reported by users of other CI systems, replayed as whole runs on one service."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from runstream.client import Client, ClientError, CreatedRuns, Inputs, Run
from tests.servers import Servers
from tests.service.running import runstream, serving

TOKEN = "open-sesame"
HOST = "runtime: {type: host}"


def tasks(*listed: str, run: str = "") -> str:
    """A configuration with one run of these tasks."""
    lines = "".join(f"      - {{{task.replace('HOST', HOST)}}}\n" for task in listed)
    return f"runs:\n  - name: trial\n{run}    tasks:\n{lines}"


TAIL = "exec > >(tee build.log) 2>&1; seq 1 50; echo 'LAST: the error message'; exit 3"
TRIALS = {
    "the last lines behind a pipe": tasks(
        *(
            f"name: tty {tty}, HOST, shell: /bin/bash -e, "
            f'steps: [{{run: {{name: tee, tty: {tty}, command: "{TAIL}"}}}}]'
            for tty in ("true", "false")
        )
    ),
    "a line of a terminal": tasks("name: t, HOST, steps: [{run: {name: plain, tty: true, command: echo hello}}]"),
    "standard input": tasks(
        'name: read, HOST, steps: [{run: {name: r, tty: false, command: "read answer || echo no answer"}}]',
        'name: cat, HOST, steps: [{run: {name: c, tty: false, command: "cat $UNSET; echo went on"}}]',
        'name: with a tty, HOST, steps: [{run: {name: r, tty: true, command: "read answer || echo no answer"}}]',
    ),
    "exit codes": tasks(
        'name: kill, HOST, steps: [{run: "kill -9 $$"}]',
        "name: segv, HOST, steps: [{run: \"sh -c 'kill -SEGV $$'\"}]",
        "name: missing, HOST, steps: [{run: nosuchcommand}]",
        'name: folder, HOST, steps: [{run: {name: x, working_dir: ./nothere, command: "true"}}]',
        'name: shell, HOST, shell: /bin/nosuchshell, steps: [{run: "true"}]',
    ),
    "an environment": tasks(
        'name: t, HOST, environment: {PATH_LIKE: "$HOME/bin:$PATH", PORT: 8080, DEBUG: true, V: 1.10}, '
        'steps: [{run: "echo $PATH_LIKE; echo $PORT $DEBUG $V"}]'
    ),
    "a pattern that selects nothing": tasks(
        'name: t, HOST, steps: [{run: "true"}, {save_to_workspace: {contents: [{paths: ["nothere/**"]}]}}]'
    ),
    "a failure among siblings": tasks(
        'name: a, HOST, steps: [{run: "exit 1"}]',
        'name: b, HOST, steps: [{run: "true"}]',
        'name: c, HOST, steps: [{run: "true"}]',
        "name: report, HOST, depends: [a: [on_success, on_failure], b: [on_success, on_failure]], "
        'steps: [{run: "echo the report"}]',
    ),
    "a failure that is ignored": tasks(
        'name: lint, HOST, ignore_failure: true, steps: [{run: "exit 1"}]',
        "name: deploy, HOST, depends: [lint], steps: [{run: echo deployed}]",
    ),
    "a task for every outcome": tasks(
        'name: build, HOST, steps: [{run: "exit 1"}]',
        'name: test, HOST, depends: [build], steps: [{run: "true"}]',
        "name: clean up, HOST, depends: [{test: [always]}], steps: [{run: echo cleaned}]",
        "name: report, HOST, depends: [{test: [on_success, on_failure, on_skipped]}], steps: [{run: echo reported}]",
    ),
    "fail_fast": tasks(
        'name: a, HOST, steps: [{run: "exit 1"}]',
        'name: b, HOST, approval: true, steps: [{run: "true"}]',
        "name: report, HOST, depends: [a: [on_failure], b: [on_success, on_failure, on_skipped]], "
        "steps: [{run: echo the report}]",
        run="    fail_fast: true\n",
    ),
    "CR LF": "{ runs: [{ name: 'trial', tasks: [{ name: 't', runtime: { type: 'host' }, steps: [{ run: { name: 'n', "
    "command: |||\r\n  echo one\r\n  test -d /tmp\r\n||| } }] }] }] }\r\n",
    "a glob": 'runs:\n  - name: glob\n    when: {branch: "release/*"}\n    tasks: []\n',
    "60 nanoseconds": tasks('name: t, HOST, task_timeout_interval: 60, steps: [{run: "true"}]'),
}


async def test_a_service_does_what_users_of_other_systems_expected(open_path: Path, servers: Servers) -> None:
    settings = {
        "RUNSTREAM_NATS_URL": servers.nats_url,
        "RUNSTREAM_DATABASE_URL": servers.database_url,
        "RUNSTREAM_NAMESPACE": servers.namespace,
        "RUNSTREAM_DATABASE_SCHEMA": servers.schema,
        "RUNSTREAM_TOKEN": TOKEN,
        "RUNSTREAM_EXECUTOR_ACTIVE_TASKS_LIMIT": "6",
    }
    async with serving(open_path / "data", **settings) as service, Client(service.url, token=TOKEN) as client:
        created = {name: await _create(client, name, text) for name, text in TRIALS.items()}
        with pytest.raises(ClientError, match="BIG"):
            await _create(
                client, "big", tasks(f"name: t, HOST, environment: {{BIG: {'x' * 200_000}}}, steps: [run: a]")
            )
        warnings = {
            name: " ".join(f"{one.message} {one.hint}" for one in runs.warnings) for name, runs in created.items()
        }
        ended = {name: await _ended(client, runs[0].id) for name, runs in created.items() if runs}
        logs = {name: await _logs(client, run) for name, run in ended.items()}
        us = {"RUNSTREAM_URL": service.url, "RUNSTREAM_TOKEN": TOKEN, "XDG_DATA_HOME": str(open_path)}
        _, shown, _ = await runstream("run", "get", ended["exit codes"].id, **us)
        of_git = await _of_git(open_path, us)

    states = {name: {task.name: task.status for task in run.tasks.values()} for name, run in ended.items()}
    results = {name: run.result for name, run in ended.items()}
    for task in ("tty true", "tty false"):
        assert logs["the last lines behind a pipe"][task].count("LAST: the error message") == 1
    assert all(
        step.exit_status == 3 for task in ended["the last lines behind a pipe"].tasks.values() for step in task.steps
    )
    assert logs["a line of a terminal"]["t"].endswith("hello\n")
    assert "\r" not in logs["a line of a terminal"]["t"]
    assert "no answer" in logs["standard input"]["read"]
    assert "no answer" in logs["standard input"]["with a tty"]
    assert "went on" in logs["standard input"]["cat"]
    assert results["standard input"] == "success"
    for said in ("137 (killed: SIGKILL, often for lack of memory)", "139 (SIGSEGV)", "./nothere", "/bin/nosuchshell"):
        assert said in " ".join(shown.split()), said
    assert "not found" in next(line for line in shown.splitlines() if "127" in line)
    assert logs["an environment"]["t"] == "$HOME/bin:$PATH\n8080 true 1.10\n"
    assert "$HOME" in warnings["an environment"]
    assert "nothere/**" in " ".join(_said(ended["a pattern that selects nothing"]))
    assert states["a failure among siblings"] == {"a": "failed", "b": "success", "c": "success", "report": "success"}
    assert results["a failure among siblings"] == "failed"
    assert states["a failure that is ignored"] == {"lint": "failed", "deploy": "success"}
    assert results["a failure that is ignored"] == "success"
    outcomes = {"build": "failed", "test": "skipped", "clean up": "success", "report": "success"}
    assert states["a task for every outcome"] == outcomes
    assert states["fail_fast"] == {"a": "failed", "b": "cancelled", "report": "success"}
    assert logs["CR LF"]["t"] == "one\n"
    assert "*" in warnings["a glob"]
    assert "for seconds write 60s" in warnings["60 nanoseconds"]
    assert of_git == {
        "ref": "new main",
        "tag": "success",
        "older": "1",
        "hook": "new",
        "[ci skip]": "nothing was created",
    }


async def _create(client: Client, name: str, text: str) -> CreatedRuns:
    file = "config.jsonnet" if text.startswith("{") else "config.yml"
    inputs = Inputs(text, file)
    return await client.runs.create_from_config(inputs, group=f"/project/trials/branch/{len(name)}")


async def _ended(client: Client, run_id: str) -> Run:
    position = ""
    async for commit in client.events.tail(run=run_id):
        if any(event.type == "RunArchived" for event in commit.events):
            position = commit.position
            break
    return await client.runs.get(run_id, at_least=position)


async def _logs(client: Client, run: Run) -> dict[str, str]:
    """The log of each task's first step."""
    return {
        task.name: (await client.logs.get(run.id, task.id, 0)).decode()
        for task in run.tasks.values()
        if task.steps and task.steps[0].start_time is not None
    }


def _said(run: Run) -> list[str]:
    return [warning for task in run.tasks.values() for step in task.steps for warning in step.warnings]


async def _of_git(folder: Path, us: Mapping[str, str]) -> dict[str, str]:
    """What runs of a repository say, each created by the command line."""
    r, other = folder / "r", folder / "other"
    for repository in (r, other):
        _git(folder, "init", "-q", "-b", "main", str(repository))
    _git(r, "commit", "-q", "--allow-empty", "-m", "old")
    _git(r, "branch", "zz/main")
    _git(r, "commit", "-q", "--allow-empty", "-m", "new")
    _git(r, "tag", "-a", "v1", "-m", "v1")
    _git(other, "commit", "-q", "--allow-empty", "-m", "of the other")

    async def followed(name: str, step: str, *words: str, clone: str = "clone: ", **more: str) -> str:
        file = folder / f"{name}.yml"
        file.write_text(tasks(f"name: t, HOST, steps: [{{{clone}}}, {{run: {{name: say, command: '{step}'}}}}]"))
        _, out, err = await runstream("run", "create", "--config", str(file), *words, "--follow", **us, **more)
        lines = [line.partition("SAID ")[2] for line in out.splitlines() if "| SAID " in line]
        return lines[0] if lines else out + err

    ref, tag, older, hook = await asyncio.gather(
        followed(
            "ref", 'echo "SAID $(git log -1 --format=%s) $RUNSTREAM_GIT_BRANCH"', "--repo", r.as_uri(), "--ref", "main"
        ),
        followed(
            "tag",
            "test $(git rev-parse HEAD) = $RUNSTREAM_GIT_COMMITSHA; echo SAID success",
            "--repo",
            r.as_uri(),
            "--ref",
            "v1",
        ),
        followed(
            "older",
            "echo SAID $(git log --oneline | wc -l)",
            "--repo",
            str(r),
            "--ref",
            "main~1",
            clone="clone: {depth: 1}",
        ),
        followed(
            "hook",
            "echo SAID $(git log -1 --format=%s)",
            "--repo",
            str(r),
            "--ref",
            "main",
            GIT_DIR=str(other / ".git"),
        ),
    )
    _git(r, "commit", "-q", "--allow-empty", "-m", "docs", "-m", "[ci skip]")
    _, out, _ = await runstream("run", "create", "--config", str(folder / "ref.yml"), "--repo", r.as_uri(), **us)
    skipped = "nothing was created" if "the message of the commit says [ci skip]: nothing was created" in out else out
    return {"ref": ref, "tag": tag, "older": older, "hook": hook, "[ci skip]": skipped}


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=folder, check=True)
