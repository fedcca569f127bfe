"""Words of GitHub Actions, GitLab CI, Woodpecker and CircleCI, each with a hint how to write it here.

As unknown fields they would be ignored, and the run would not do what its author meant.
"""

from __future__ import annotations

from collections.abc import Mapping

_WHEN_HINT = "write `when` with branch, tag or ref"
_IMAGE = "write `runtime: {containers: [{image: …}]}`"
_STEPS = "write a step: `steps: [{run: …}]`"
_TIMEOUT = "write `task_timeout_interval`, such as 10m"
_MATRIX = "write one task for each, or generate them with jsonnet: docs/how-to/matrix.md"
_ENVIRONMENT = "write `environment`"
_VARIABLE = "write `environment` with `from_variable`: docs/how-to/secrets.md"
_LABELS = "write `labels` of its `runtime`"
_HOST = "write `runtime: {type: host}`, with `labels` for certain executors"
_ARCH = "write `arch` of its `runtime`"
_CACHE = "write a `restore_cache` step before and a `save_cache` step after the steps that fill it"
_SAVE = "write a `save_to_workspace` step"
_CONDITION = "a step has no condition: write `when` in its task, or test in the command"
_STEP_TIMEOUT = "write `step_timeout_interval`, such as 10m"
_STEP_FAILURE = "write `command || true`, or `ignore_failure` in its task"
_STEP_DEPENDS = "steps run one after the other; write `depends` in its task to wait for other tasks"
_STEP_CONTAINER = "its task has the containers: write `runtime: {containers: [{image: …}]}` there"
_BACKGROUND = "write `command &`: what a step starts goes on until its task ends"
FOREIGN_TASK: Mapping[str, str] = {
    **dict.fromkeys(("needs", "depends_on", "requires"), "write `depends`"),
    "dependencies": "write `depends`, and `restore_workspace` for files",
    **dict.fromkeys(("if", "only", "except", "rules", "filters", "branches", "unless"), _WHEN_HINT),
    **dict.fromkeys(("env", "variables", "environments"), _ENVIRONMENT),
    **dict.fromkeys(("image", "container", "docker", "executor"), _IMAGE),
    **dict.fromkeys(("entrypoint", "volumes", "privileged"), "write it in a container of its `runtime`"),
    "services": "write further `containers` of its `runtime`",
    **dict.fromkeys(("runs-on", "runs_on", "machine"), "write `runtime`, with `labels` for certain executors"),
    **dict.fromkeys(("tags", "labels", "resource_class"), _LABELS),
    **dict.fromkeys(("platform", "arch", "architecture"), _ARCH),
    **dict.fromkeys(("script", "run", "commands", "command", "before_script", "pre-steps"), _STEPS),
    **dict.fromkeys(("after_script", "post-steps"), "write a task that `depends` on this one on `always`"),
    "uses": "there are no actions: write its commands as `run` steps",
    "settings": "there are no plugins: write its commands as `run` steps",
    "trigger": "write a `run` step that calls `runstream run create`",
    "stage": "write `depends`: tasks without it run at once",
    "artifacts": _SAVE,
    "outputs": "hand files over: a `save_to_workspace` step here, `restore_workspace` in the tasks that depend on it",
    "cache": _CACHE,
    **dict.fromkeys(("matrix", "strategy", "parallel", "parallelism"), _MATRIX),
    **dict.fromkeys(("timeout", "timeout-minutes"), _TIMEOUT),
    **dict.fromkeys(("allow_failure", "continue-on-error", "failure"), "write `ignore_failure`"),
    **dict.fromkeys(("concurrency", "resource_group"), "write `concurrency` in its run"),
    "secrets": _VARIABLE,
    "context": _VARIABLE,
    **dict.fromkeys(("working_directory", "directory"), "write `working_dir`"),
    "defaults": "write `shell` and `working_dir` in each task",
    "extends": "write an alias (`<<: *name`), or jsonnet",
    "detach": "its steps run in order, and what a step starts in the background goes on until the task ends",
}
"""Fields of a task."""
FOREIGN_RUN: Mapping[str, str] = {
    "jobs": "write `tasks`, a list",
    **dict.fromkeys(
        ("steps", "script", "commands", "before_script", "after_script"),
        "write `tasks`: a run has tasks, a task has steps",
    ),
    "stages": "write `depends` in tasks",
    **dict.fromkeys(("on", "triggers", "branches", "workflow"), _WHEN_HINT),
    **{word: FOREIGN_TASK[word] for word in ("if", "only", "except", "rules", "filters", "matrix", "strategy")},
    **dict.fromkeys(("env", "variables", "environment"), "write it in each task, as `environment`"),
    **dict.fromkeys(("image", "container", "docker", "runtime"), "write `runtime` in each task"),
    **dict.fromkeys(("runs-on", "runs_on", "labels", "platform", "tags"), "write `labels` or `arch` in each `runtime`"),
    **{word: FOREIGN_TASK[word] for word in ("services", "timeout", "timeout-minutes", "cache", "artifacts")},
    **dict.fromkeys(
        ("needs", "depends_on", "depends", "requires"), "write `depends` in tasks: runs of one file wait for none"
    ),
    "defaults": FOREIGN_TASK["defaults"],
    "clone": "write a `clone` step in each task that needs the sources",
    "skip_clone": "leave the `clone` step out",
    "secrets": "write it in each task, as `environment` with `from_variable`: docs/how-to/secrets.md",
}
"""Fields of a run."""
FOREIGN_STEP: Mapping[str, str] = {
    "uses": FOREIGN_TASK["uses"],
    **dict.fromkeys(("script", "commands", "command", "shell", "sh", "bash"), "write `run: …`"),
    "with": "write `environment` of a `run` step",
    **dict.fromkeys(("if", "when", "unless", "only", "except", "rules", "filters"), _CONDITION),
    **dict.fromkeys(("env", "variables", "environment"), "write `environment` in a `run` step, or in its task"),
    **dict.fromkeys(("image", "container", "docker"), _STEP_CONTAINER),
    "services": "write further `containers` of its task's `runtime`",
    "checkout": "write `clone:`",
    **dict.fromkeys(("working-directory", "working_directory", "directory"), "write `working_dir` in a `run` step"),
    **dict.fromkeys(("continue-on-error", "allow_failure", "ignore_failure", "failure"), _STEP_FAILURE),
    **dict.fromkeys(("timeout", "timeout-minutes"), "write `step_timeout_interval` in a step, such as 10m"),
    **dict.fromkeys(("needs", "depends_on", "dependencies", "depends", "requires", "stage"), _STEP_DEPENDS),
    **dict.fromkeys(
        ("artifacts", "persist_to_workspace", "store_artifacts", "store_test_results"), "write `save_to_workspace:`"
    ),
    "attach_workspace": "write `restore_workspace:`",
    "cache": _CACHE,
    "secrets": "write `environment` of a `run` step with `from_variable`: docs/how-to/secrets.md",
    "settings": FOREIGN_TASK["settings"],
    **dict.fromkeys(("matrix", "strategy", "parallel"), _MATRIX),
    "retry": "write `retry` in its task",
    **dict.fromkeys(("background", "detach"), _BACKGROUND),
}
"""Names of a step, and fields beside its name."""
FOREIGN_STEP_FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("script", "commands", "run", "cmd"), "write `command`"),
    **dict.fromkeys(("uses", "settings"), FOREIGN_TASK["uses"]),
    "with": _ENVIRONMENT,
    **dict.fromkeys(("if", "unless", "only", "except", "rules", "filters"), _CONDITION),
    **dict.fromkeys(("env", "variables"), _ENVIRONMENT),
    **dict.fromkeys(("image", "container", "docker"), _STEP_CONTAINER),
    "services": FOREIGN_STEP["services"],
    **dict.fromkeys(("working-directory", "working_directory", "directory", "cwd"), "write `working_dir`"),
    **dict.fromkeys(("continue-on-error", "allow_failure", "ignore_failure", "failure"), _STEP_FAILURE),
    **dict.fromkeys(("timeout", "timeout-minutes"), _STEP_TIMEOUT),
    **dict.fromkeys(("needs", "depends_on", "dependencies", "depends", "requires", "stage"), _STEP_DEPENDS),
    "artifacts": _SAVE,
    "cache": _CACHE,
    "secrets": _VARIABLE,
    **dict.fromkeys(("matrix", "strategy", "parallel"), _MATRIX),
    "retry": "write `retry` in its task",
    **dict.fromkeys(("background", "detach"), _BACKGROUND),
    **dict.fromkeys(("user", "runtime"), "write it in its task"),
    "fetch-depth": "write `depth`",
    "submodules": "write `recurse_submodules: true`",
    **dict.fromkeys(("paths", "path", "root"), 'write `contents: [{source_dir: …, paths: ["**"]}]`'),
    "at": "write `dest_dir`",
}
"""Fields of a step of ours."""
FOREIGN_RUNTIME: Mapping[str, str] = {
    **dict.fromkeys(("image", "container", "docker"), "write `containers: [{image: …}]`"),
    "services": "write further `containers`",
    **dict.fromkeys(("machine", "macos", "windows"), "write `type: host`, with `labels` for certain executors"),
    **dict.fromkeys(("runs-on", "runs_on", "tags", "resource_class", "os", "group"), "write `labels`"),
    "platform": "write `arch`",
    **dict.fromkeys(("env", "variables", "environment"), "write `environment` in its task, or in a container"),
    **dict.fromkeys(("user", "privileged", "entrypoint", "volumes"), "write it in a container"),
    **dict.fromkeys(("command", "commands", "script", "steps", "run"), "write `steps` in its task"),
}
"""Fields of a task's runtime."""
FOREIGN_CONTAINER: Mapping[str, str] = {
    **dict.fromkeys(("env", "variables"), _ENVIRONMENT),
    **dict.fromkeys(("command", "args"), "write `entrypoint`; what a task runs are its `steps`"),
    **dict.fromkeys(("commands", "script", "run"), "write `steps` in its task"),
    **dict.fromkeys(("ports", "alias", "aliases", "hostname"), "containers of a task share one network: use localhost"),
    "credentials": "write `docker_registries_auth` in its task",
}
"""Fields of a container."""
FOREIGN_WHEN: Mapping[str, str] = {
    **dict.fromkeys(("if", "rules", "filters", "evaluate"), _WHEN_HINT),
    **dict.fromkeys(
        ("event", "push", "pull_request", "merge_request", "merge_requests"),
        "write `ref`: a pull request's is refs/pull/N/head",
    ),
    **dict.fromkeys(("branches", "only"), "write `branch`"),
    "refs": "write `ref`",
    "tags": "write `tag`",
    "branches-ignore": "write `branch: {include: …, exclude: …}`",
    "tags-ignore": "write `tag: {include: …, exclude: …}`",
    **dict.fromkeys(
        ("except", "ignore", "include", "exclude"), "write it in `branch`, `tag` or `ref`: {include: …, exclude: …}"
    ),
    **dict.fromkeys(
        ("status", "on_success", "on_failure", "always"), "write conditions in `depends`: {TASK: [on_failure]}"
    ),
    **dict.fromkeys(
        ("paths", "path", "paths-ignore", "changes", "exists"), "changed files do not count: test in a command"
    ),
    **dict.fromkeys(
        ("cron", "schedule", "workflow_dispatch", "manual"),
        "runs are created by `runstream run create`; `approval: true` waits for a person",
    ),
    **dict.fromkeys(
        ("variables", "platform", "matrix", "environment"), "write branch, tag or ref: nothing else is compared"
    ),
}
"""Fields of `when`."""
FOREIGN_PATTERNS: Mapping[str, str] = {
    **dict.fromkeys(("only", "branches", "tags"), "write `include`"),
    **dict.fromkeys(("ignore", "except", "branches-ignore", "tags-ignore"), "write `exclude`"),
}
"""Fields of `branch`, `tag` and `ref` in `when`."""
FOREIGN_DEPEND: Mapping[str, str] = {
    **dict.fromkeys(("job", "name", "step", "stage"), "write `task`"),
    **dict.fromkeys(("status", "when", "if"), "write `conditions`: on_success, on_failure, on_skipped, always"),
    "artifacts": "write a `restore_workspace` step",
    "optional": "write each task that there is: none is optional",
}
"""Fields of a dependency."""
FOREIGN_RETRY: Mapping[str, str] = {
    "when": "write `on`: failure, lost, timeout",
    **dict.fromkeys(("attempts", "limit", "max_attempts"), "write `max`: how many attempts may follow the first"),
}
"""Fields of `retry`."""
FOREIGN_CONCURRENCY: Mapping[str, str] = {
    "group": "runs of one name in one group count; the group is given with the run (--group)",
    "cancel-in-progress": "write `policy: cancel_running`",
}
"""Fields of `concurrency`."""
FOREIGN_VALUE: Mapping[str, str] = dict.fromkeys(
    ("from_secret", "secret", "valueFrom"), "write `from_variable`; secrets are variables: docs/how-to/secrets.md"
)
"""Fields of a value in `environment`."""
FOREIGN_TOP: Mapping[str, str] = {
    "jobs": "write `runs`, each with `tasks`",
    **dict.fromkeys(("on", "when", "if", "branches"), "write `when` in each run"),
    "stages": FOREIGN_RUN["stages"],
    **dict.fromkeys(("env", "variables", "environment"), "write `environment` in each task"),
    **dict.fromkeys(("image", "runs-on", "labels", "platform"), "write `runtime` in each task"),
    "services": FOREIGN_TASK["services"],
    **dict.fromkeys(
        ("steps", "script", "before_script", "tasks"), "write `runs`, each with `tasks`, each with `steps`"
    ),
    "after_script": "write a task that `depends` on the others on `always`",
    "cache": FOREIGN_TASK["cache"],
    "matrix": _MATRIX,
    **dict.fromkeys(
        ("workflow", "workflows", "pipeline"), "write `runs`, each with `tasks`; `when` says for which refs"
    ),
    **dict.fromkeys(
        ("include", "orbs", "executors", "commands", "default", "defaults"), "write jsonnet with `import`, or aliases"
    ),
    "concurrency": "write `concurrency` in each run",
    "timeout": "write `run_timeout_interval`, such as 1h",
}
"""Fields of the top level."""
FOREIGN_WHEN_TEXTS: Mapping[str, str] = {
    "manual": "write `approval: true`",
    **dict.fromkeys(
        ("always", "on_success", "on_failure", "never", "delayed"), "write conditions in `depends`: {TASK: [always]}"
    ),
}
"""Texts in place of the map of `when`."""
SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "a GitLab CI file": ("stages", "before_script", "workflow", "default", "include"),
    "a CircleCI file": ("workflows", "orbs"),
    "a GitHub Actions workflow": ("jobs",),
    "a Woodpecker CI file": ("steps", "pipeline"),
}
"""Fields of the top level by which a file without `runs` is recognized as another system's."""
FOREIGN_HINT = "docs/how-to/from-github-actions.md shows both side by side"
