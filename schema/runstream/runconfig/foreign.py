"""Words of other CI systems, and what they are here: taken for fields, they would be ignored."""

from __future__ import annotations

from collections.abc import Mapping

_WHEN_HINT = "write `when` with branch, tag or ref"
_IMAGE = "write `runtime: {containers: [{image: …}]}`"
_STEPS = "write a step: `steps: [{run: …}]`"
_TIMEOUT = "write `task_timeout_interval`, such as 10m"
_MATRIX = "write one task for each, or generate them with jsonnet: docs/how-to/matrix.md"
FOREIGN_TASK: Mapping[str, str] = {
    "needs": "write `depends`",
    "dependencies": "write `depends`, and `restore_workspace` for files",
    "depends_on": "write `depends`",
    "if": _WHEN_HINT,
    "only": _WHEN_HINT,
    "except": _WHEN_HINT,
    "rules": _WHEN_HINT,
    "env": "write `environment`",
    "variables": "write `environment`",
    "image": _IMAGE,
    "container": _IMAGE,
    "services": "write further `containers` of its `runtime`",
    "runs-on": "write `runtime`, with `labels` for certain executors",
    "tags": "write `labels` of its `runtime`",
    "script": _STEPS,
    "run": _STEPS,
    "commands": _STEPS,
    "before_script": _STEPS,
    "after_script": "write a task that `depends` on this one on `always`",
    "uses": "there are no actions: write its commands as `run` steps",
    "stage": "write `depends`: tasks without it run at once",
    "artifacts": "write a `save_to_workspace` step",
    "cache": "caches are not available yet",
    "matrix": _MATRIX,
    "strategy": _MATRIX,
    "parallel": _MATRIX,
    "timeout": _TIMEOUT,
    "timeout-minutes": _TIMEOUT,
    "allow_failure": "write `ignore_failure`",
    "continue-on-error": "write `ignore_failure`",
    "environments": "write `environment`",
    "secrets": "write `environment` with `from_variable`: docs/how-to/secrets.md",
    "extends": "write an alias (`<<: *name`), or jsonnet",
}
"""Words of other CI systems in a task, and what they are here."""
FOREIGN_RUN: Mapping[str, str] = {
    "jobs": "write `tasks`, a list",
    "steps": "write `tasks`: a run has tasks, a task has steps",
    "stages": "write `depends` in tasks",
    "on": _WHEN_HINT,
    **{word: FOREIGN_TASK[word] for word in ("if", "only", "except", "rules", "matrix", "strategy")},
    **dict.fromkeys(("env", "variables"), "write it in each task, as `environment`"),
    **{word: FOREIGN_TASK[word] for word in ("image", "services", "needs", "timeout", "cache", "artifacts")},
}
FOREIGN_STEP: Mapping[str, str] = {
    "uses": FOREIGN_TASK["uses"],
    "script": "write `run: …`",
    "commands": "write `run: …`",
    "with": "write `environment` of a `run` step",
    "if": "a step has no condition: write `when` in its task, or test in the command",
    "env": "write `environment`",
    "image": _IMAGE,
    "checkout": "write `clone:`",
    "working-directory": "write `working_dir`",
    "continue-on-error": "write `command || true`, or `ignore_failure` in its task",
    "timeout-minutes": "write `step_timeout_interval`, such as 10m",
}
FOREIGN_TOP: Mapping[str, str] = {
    "jobs": "write `runs`, each with `tasks`",
    "on": "write `when` in each run",
    "stages": FOREIGN_RUN["stages"],
    "env": "write `environment` in each task",
    "variables": "write `environment` in each task",
    "image": _IMAGE,
    "services": FOREIGN_TASK["services"],
    "before_script": _STEPS,
    "after_script": FOREIGN_TASK["after_script"],
    "cache": FOREIGN_TASK["cache"],
    "workflow": _WHEN_HINT,
    "include": "write jsonnet with `import`",
}
SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "a GitHub Actions workflow": ("jobs",),
    "a GitLab CI file": ("stages", "before_script", "workflow", "default", "include"),
    "a Woodpecker CI file": ("steps", "pipeline"),
}
"""Fields of the top level that tell other systems' files, where there are no `runs`."""
FOREIGN_HINT = "docs/how-to/from-github-actions.md shows both side by side"
