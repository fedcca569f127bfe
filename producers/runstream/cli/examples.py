"""A real command line or two for the help of each command."""

from __future__ import annotations

EXAMPLES = {
    "run create": ("runstream run create --follow", "runstream run create --config ci.yml --env STAGE=test"),
    "run restart": ("runstream run restart latest --from-failed --follow",),
    "run list": ("runstream run list --project web --branch main", "runstream run list --waiting-approval"),
    "run get": ("runstream run get /project/web/12", "runstream run get latest --output json"),
    "run follow": ("runstream run follow latest",),
    "run why": ("runstream run why /project/web/12",),
    "run stop": ("runstream run stop /project/web/12",),
    "run cancel": ("runstream run cancel /project/web/12",),
    "run pause": ("runstream run pause /project/web/12",),
    "run resume": ("runstream run resume /project/web/12",),
    "run approve": ("runstream run approve /project/web/12 deploy",),
    "run annotate": ("runstream run annotate /project/web/12 deploy ticket=OPS-7",),
    "config schema": ("runstream config schema > run-config.schema.json",),
    "config check": ("runstream config check .runstream/config.yml --strict",),
    "log get": ("runstream log get latest --failed --tail 20", "runstream log get /project/web/12 test --step unit"),
    "executor list": ("runstream executor list",),
    "executor drain": ("runstream executor drain EXECUTOR",),
    "executor undrain": ("runstream executor undrain EXECUTOR",),
    "executor delete": ("runstream executor delete EXECUTOR",),
    "events tail": ("runstream events tail --from start", "runstream events tail --run latest --output json"),
    "maintenance enable": ("runstream maintenance enable --wait --deadline 10m --reason upgrade",),
    "maintenance disable": ("runstream maintenance disable --wait",),
    "maintenance status": ("runstream maintenance status --wait",),
    "maintenance forget": ("runstream maintenance forget INSTANCE",),
    "init": ("runstream init",),
    "serve": ("runstream serve --detach",),
    "stop": ("runstream stop",),
    "status": ("runstream status",),
    "env": ('eval "$(runstream env)"',),
    "doctor": ("runstream doctor",),
    "fsck": ("runstream fsck",),
    "rebuild": ("runstream rebuild",),
    "parked list": ("runstream parked list",),
    "parked show": ("runstream parked show 1/0/812",),
    "parked retry": ("runstream parked retry",),
    "parked skip": ("runstream parked skip 1/0/812 --reason 'written by a broken version'",),
    "export": ("runstream export -o backup.snapshot.tar --with logs,archives",),
    "import": ("runstream import backup.snapshot.tar",),
    "epochs list": ("runstream epochs list",),
    "epochs activate": ("runstream epochs activate 2",),
    "epochs delete": ("runstream epochs delete 1",),
    "snapshot verify": ("runstream snapshot verify backup.snapshot.tar",),
    "snapshot show": ("runstream snapshot show backup.snapshot.tar",),
    "snapshot diff": ("runstream snapshot diff before.snapshot.tar after.snapshot.tar",),
    "snapshot keygen": ("runstream snapshot keygen signing",),
    "completion": ('eval "$(runstream completion bash)"',),
}
"""By the words of the command behind `runstream`."""


def example_text(command: str) -> str | None:
    """Return what the help of a command ends with; None for a group of commands."""
    if command not in EXAMPLES:
        return None
    return "\n\n".join(["Examples:" if len(EXAMPLES[command]) > 1 else "Example:", *EXAMPLES[command]])
