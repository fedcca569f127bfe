"""A log in which every type of event of this version happens: what the golden snapshot of a version holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from runstream.codec import encode
from runstream.commits import Head
from runstream.events.event import DomainEvent
from runstream.events.executor import (
    ExecutorDeleted,
    ExecutorDrained,
    ExecutorLost,
    ExecutorUndrained,
)
from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskAssigned,
    ExecutorTaskCancelled,
    ExecutorTaskFinished,
    ExecutorTaskInterrupted,
    ExecutorTaskLogLost,
    ExecutorTaskLogStored,
    ExecutorTaskLost,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStarted,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
    ExecutorTaskStepTimedOut,
    ExecutorTaskStopRequested,
    ExecutorTaskTimedOut,
)
from runstream.events.run import (
    RunArchived,
    RunCancelled,
    RunCreated,
    RunDataRemoved,
    RunDeleted,
    RunFinished,
    RunNumbered,
    RunPaused,
    RunRestarted,
    RunResultSet,
    RunResumed,
    RunStarted,
    RunStopRequested,
    RunTaskAnnotated,
    RunTaskApprovalRequested,
    RunTaskApproved,
    RunTaskLogDeleted,
    RunTaskRetried,
    RunTaskRetryDropped,
    RunTasksCancelled,
    RunTasksSkipped,
    RunTimedOut,
)
from runstream.events.run_config import Depend, RunConfig, RunConfigStored
from runstream.events.skip import CommitSkipped
from runstream.events.webhook import WebhookChange, WebhookHandled, WebhookReceived, WebhookReplayed
from runstream.ids import derived_id, executor_task_id, run_task_id
from runstream.log.port import RawMessage
from runstream.run_states import RunResult
from runstream.runconfig.resolve import config_hash
from runstream.skips import hash_of
from runstream.subjects import Address, group_root, partition_of, skip_address, webhook_address
from tests.domain.world import config, task
from tests.factories import executor_registered, task_kept
from tests.log.memory import MemoryLog

PARTITIONS = 2
BEGAN = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EXECUTOR = "north-1"
SUCCESS, FAILED = ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED
ENDED = (RunFinished(), RunArchived())
PARKED = b'{"written": "by something else"}'
"""The last commit of the log: unreadable, therefore parked."""
CHAIN = config(
    task("build", steps=2, save=True),
    task("check", Depend("build", ("on_success",)), level=1, needs_approval=True),
    name="Grüße, 世界 \U0001f680",
)
ONE = config(task("build", steps=1), task("lint", steps=0))
BIG = config(task("build", environment={f"VARIABLE_{n}": "x" * 70 for n in range(1000)}))


@dataclass(slots=True)
class Story:
    """Writes commits, each a second after the one before."""

    log: MemoryLog = field(default_factory=lambda: MemoryLog("golden", partitions=PARTITIONS))
    heads: dict[Address, Head] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    written: int = 0

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.written)

    def write(self, address: Address, *events: DomainEvent, cause: str = "", trace: str = "") -> None:
        self.written += 1
        head = self.heads.get(address, Head())
        commit = head.next_commit(
            address,
            events,
            time=self.now(),
            actor="user:ada" if not cause else "scheduler",
            cause=cause or derived_id("golden", str(self.written)),
            trace=trace,
        )
        body, headers = encode(commit)
        position = self.log.put(address.partition, self.log.subjects.of(address), body, headers)
        self.heads[address] = Head(commit.version, position.sequence)

    def skip(self, address: Address) -> None:
        """Something else writes into the aggregate, and that is skipped."""
        version, subject = self.heads[address].version, self.log.subjects.of(address)
        position = self.log.put(address.partition, subject, b"\xff is no JSON")
        message = RawMessage(subject, position, b"\xff is no JSON", {}, self.now())
        skipped = CommitSkipped(hash_of(message), version, version + 1, str(position), "of another program")
        self.heads[address] = Head(version + 1, position.sequence)
        self.write(skip_address(address.partition, subject), skipped)

    def run(
        self, name: str, content: RunConfig, group: str, *setup_errors: str, restart: RunRestarted | None = None
    ) -> RunStory:
        partition = partition_of(group_root(group), PARTITIONS)
        digest = config_hash(content)
        stored = Address(partition, "runconfig", digest)
        if stored not in self.heads:
            self.write(stored, RunConfigStored(content))
        run = RunStory(self, Address(partition, "run", derived_id("golden", name)), digest, group)
        annotations = {"branch": "main", "commit": "1f2e3d", "message": 'says "hello"\n\tand more'}
        created = RunCreated(content.name, group, digest, annotations, setup_errors, "")
        self.write(run.address, created, *([restart] if restart is not None else []), trace=TRACE)
        return run

    def number(self, partition: int) -> RunNumbered:
        number = self.numbers[partition] = self.numbers.get(partition, 0) + 1
        return RunNumbered(number, number)


@dataclass(slots=True)
class RunStory:
    story: Story
    address: Address
    config: str
    group: str

    def does(self, *events: DomainEvent) -> None:
        self.story.write(self.address, *events, cause=self.address.id, trace=TRACE)

    def starts(self) -> None:
        self.does(self.story.number(self.address.partition), RunStarted())

    def task(self, name: str, steps: int, attempt: int = 1) -> Address:
        run = self.address.id
        made = run_task_id(run, name)
        address = Address(self.address.partition, "task", executor_task_id(run, made, attempt), EXECUTOR)
        counter = self.story.numbers[self.address.partition]
        minute = 60_000_000_000
        event = ExecutorTaskAssigned(
            EXECUTOR, run, made, name, self.config, self.group, counter, steps, minute, attempt, {}
        )
        self.story.write(address, event, cause=run)
        return address

    def on(self, executor_task: Address, *events: DomainEvent) -> None:
        self.story.write(executor_task, *events, cause=self.address.id)


def golden_log() -> MemoryLog:
    """The log."""
    story = Story()
    executor = Address(partition_of(EXECUTOR, PARTITIONS), "executor", EXECUTOR)
    offer = executor_registered(
        "group",
        archs=("amd64", "arm64"),
        labels={"zone": "a"},
        allow_privileged_containers=True,
        active_tasks_limit=4,
        dynamic=True,
        version="0.2.0",
    )
    story.write(executor, offer)
    _succeeds(story.run("succeeds", CHAIN, "/project/web/branch/main"))
    _is_stopped(story.run("is stopped", CHAIN, "/project/web/branch/main"))
    _times_out(story.run("times out", ONE, "/user/ada/localrepo/1"))
    broken = story.run("is broken", ONE, "/project/api/branch/main", "line 3: no such task", "line 9: a cycle")
    broken.does(story.number(broken.address.partition), RunArchived())
    withdrawn = story.run("is withdrawn", BIG, "/project/api/branch/main")
    withdrawn.does(story.number(withdrawn.address.partition))
    story.skip(withdrawn.address)
    withdrawn.does(RunCancelled(""), RunArchived())
    _loses_its_executor(story.run("loses its executor", ONE, "/project/web/branch/topic"), executor)
    running = story.run("is still running", CHAIN, "/project/web/branch/main")
    running.starts()
    running.on(running.task("build", 2), ExecutorTaskStarted(story.now()))
    _is_restarted(story, running)
    _is_retried(story.run("is retried", ONE, "/user/ada/localrepo/2"))
    _is_pushed(story, running.address.id)
    queued = story.run("is queued", CHAIN, "/project/web/branch/main")
    story.write(executor, ExecutorDrained())
    story.write(executor, ExecutorUndrained())
    story.write(executor, ExecutorDeleted())
    story.log.put(queued.address.partition, story.log.subjects.of(queued.address), PARKED)
    return story.log


def _is_pushed(story: Story, run_id: str) -> None:
    """A webhook makes no run, and is replayed."""
    address = webhook_address("web", derived_id("golden", "webhook"), PARTITIONS)
    change = WebhookChange("push", "refs/heads/main", "1f2e3d", "Grüße", "", same_repository=True, link="")
    story.write(address, WebhookReceived("web", "gitea", "a delivery", "push", "ada", "7", change))
    story.write(address, WebhookHandled((), "fetchFailed", "git cannot fetch"))
    story.write(address, WebhookReplayed())
    story.write(address, WebhookHandled((run_id,), "", ""))


def _succeeds(run: RunStory) -> None:
    run.starts()
    build = run.task("build", 2)
    run.on(build, ExecutorTaskStarted(run.story.now()))
    at = run.story.now()
    run.on(build, ExecutorTaskSetupFinished(at, SUCCESS), ExecutorTaskStepStarted(0, at))
    run.on(
        build,
        *(ExecutorTaskStepFinished(0, at, SUCCESS, None), ExecutorTaskArchiveStored(0, ())),
        ExecutorTaskStepStarted(1, at),
        *(ExecutorTaskStepFinished(1, at, SUCCESS, 0), ExecutorTaskLogStored(None), ExecutorTaskLogStored(0)),
        *(ExecutorTaskLogStored(1), ExecutorTaskFinished(at, SUCCESS, "")),
    )
    run.does(RunTaskApprovalRequested("check"))
    run.does(RunTaskAnnotated("check", {"ticket": "OPS-12"}), RunTaskApproved("check"))
    check = run.task("check", 1)
    run.on(check, ExecutorTaskStarted(at))
    run.on(
        check,
        *(ExecutorTaskSetupFinished(at, SUCCESS), ExecutorTaskLogLost(None), ExecutorTaskStepStarted(0, at)),
        *(ExecutorTaskStepFinished(0, at, SUCCESS, 0), ExecutorTaskLogStored(0), ExecutorTaskFinished(at, SUCCESS, "")),
    )
    run.does(RunResultSet(RunResult.SUCCESS), *ENDED)
    run.does(RunTaskLogDeleted("check", 1, 0))


def _is_stopped(run: RunStory) -> None:
    run.starts()
    build = run.task("build", 2)
    run.does(RunStopRequested(""))
    run.does(RunTasksSkipped(("check",)), RunResultSet(RunResult.STOPPED))
    run.on(build, ExecutorTaskStopRequested())
    run.on(build, ExecutorTaskCancelled(run.story.now()))
    run.does(*ENDED)
    run.does(RunDataRemoved(("logs", "archives"), "logs 30d"))
    run.does(RunDeleted("runs.keep 100"))


def _times_out(run: RunStory) -> None:
    run.starts()
    at = run.story.now()
    build = run.task("build", 1)
    run.on(build, ExecutorTaskStarted(at))
    run.on(build, ExecutorTaskSetupFinished(at, SUCCESS), ExecutorTaskLogLost(None), ExecutorTaskStepStarted(0, at))
    run.on(build, ExecutorTaskTimedOut())
    run.on(
        build,
        *(ExecutorTaskStepFinished(0, at, FAILED, None), ExecutorTaskLogLost(0)),
        ExecutorTaskFinished(at, FAILED, "it took longer than 1m"),
    )
    run.does(RunResultSet(RunResult.FAILED), RunTasksCancelled(("lint",)), *ENDED)


def _loses_its_executor(run: RunStory, executor: Address) -> None:
    run.starts()
    build = run.task("build", 1)
    run.on(build, ExecutorTaskStarted(run.story.now()))
    run.story.write(executor, ExecutorLost())
    run.on(build, ExecutorTaskLost(run.story.now(), "the executor is gone"))
    run.does(RunResultSet(RunResult.FAILED), RunTasksCancelled(("lint",)), *ENDED)


def _is_restarted(story: Story, earlier: RunStory) -> None:
    """It takes a task over, is paused for a while, and takes too long."""
    made = run_task_id(earlier.address.id, "build")
    at = story.now()
    made_by = executor_task_id(earlier.address.id, made)
    kept = task_kept("build", made, made_by, approver="user:ada", approved_at=at, start_time=at, end_time=at)
    restart = RunRestarted(earlier.address.id, "chosen", ("check",), True, False, (kept,))
    run = story.run("is restarted", CHAIN, "/project/web/branch/again", restart=restart)
    run.starts()
    run.does(RunPaused())
    run.does(RunResumed())
    run.does(RunTimedOut(), RunTasksSkipped(("check",)), RunResultSet(RunResult.FAILED), *ENDED)


def _is_retried(run: RunStory) -> None:
    run.starts()
    at = run.story.now()
    for attempt in (1, 2):
        build = run.task("build", 1, attempt)
        run.on(build, ExecutorTaskStarted(at))
        run.on(build, ExecutorTaskSetupFinished(at, SUCCESS), ExecutorTaskLogLost(None), ExecutorTaskStepStarted(0, at))
        run.on(
            build,
            *(ExecutorTaskStepTimedOut(0, at, "no_output"), ExecutorTaskStepFinished(0, at, FAILED, None)),
            *(ExecutorTaskLogLost(0), ExecutorTaskFinished(at, FAILED, "it was silent for too long")),
        )
        if attempt == 1:
            run.does(RunTaskRetried("build", 2, "timeout", at))
    lint = run.task("lint", 0)
    run.on(lint, ExecutorTaskStarted(at))
    run.on(
        lint,
        *(ExecutorTaskInterrupted(at), ExecutorTaskSetupFinished(at, FAILED), ExecutorTaskLogLost(None)),
        ExecutorTaskFinished(at, FAILED, "the executor was stopped"),
    )
    run.does(RunTaskRetried("lint", 2, "lost", at), RunResultSet(RunResult.FAILED), RunTaskRetryDropped("lint"), *ENDED)
