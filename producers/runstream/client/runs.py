"""Operations on runs: create, restart, read, list, stop, cancel, pause, approve, annotate, delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Unpack

import msgspec
from msgspec.structs import asdict

from runstream.api import (
    ConfigWarning,
    Failures,
    FlakyList,
    GroupView,
    Page,
    RestartPreview,
    Run,
    RunCommit,
    RunDiff,
    RunSummary,
    SkippedRun,
    Why,
)
from runstream.backoff import Backoff, retry
from runstream.client.errors import ClientError, ConnectionFailedError
from runstream.client.following import server_sent_events
from runstream.client.paths import api_path
from runstream.client.session import SILENCE_SECONDS, Session, Stream, decoded, stream_error
from runstream.client.types import NO_SOURCE, CreatedRuns, Inputs, NewRun, RunFilters, RunHistory, Source
from runstream.json_changes import with_changes

MAX_PAGE = 40
_CHANGES = Backoff(0.0, attempts=10)
"""Attempts to change what others change at the same time."""


@dataclass(frozen=True, slots=True)
class _RunAnswer:
    run: Run
    change_groups_update_tokens: str = ""


@dataclass(frozen=True, slots=True)
class _RunsAnswer:
    runs: tuple[_RunAnswer, ...]
    skipped: tuple[SkippedRun, ...] = ()
    warnings: tuple[ConfigWarning, ...] = ()


class Runs:
    """Operations on runs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, run: NewRun, *, idempotency_key: str = "") -> Run:
        """Create one run of resolved tasks.

        It is durable when this returns; its number is assigned a moment later. With an idempotency key the request is
        retried when the connection fails, and the same key and request return the same run, as it was created.
        Raises ClientError; of kind conflict when the key was used for another request.
        """
        return (await self._session.write("POST", "/runs", run, _RunAnswer, idempotency_key=idempotency_key)).run

    async def restart(
        self,
        run_id: str,
        *,
        from_start: bool = False,
        tasks: Sequence[str] = (),
        descendants: bool = False,
        environment: Mapping[str, str] | None = None,
        fresh: Inputs | None = None,
        idempotency_key: str = "",
    ) -> Run:
        """Re-run a finished run, or some of its tasks, as a new run of its group.

        With `from_start` all tasks run again; with `tasks` those of these names or ids, and with `descendants` the
        tasks that depend on them; otherwise the tasks that did not succeed and those that depend on them. All other
        tasks are kept and share outcome, logs and archives with the earlier run. `environment` replaces that of the
        earlier run; with `fresh` variables and secrets are resolved again, from the same file with other inputs.
        `idempotency_key` works as in `create`.

        Raises ClientError (bad-request) when this restart is not possible, with those that are.
        """
        body: dict[str, object] = {
            "run_id": run_id,
            "from_start": from_start,
            "tasks": tasks,
            "descendants": descendants,
        }
        if environment is not None:
            body["environment"] = environment
        if fresh is not None:
            body["fresh"] = _resolved_from(fresh)
        return (await self._session.write("POST", "/runs", body, _RunAnswer, idempotency_key=idempotency_key)).run

    async def create_from_config(
        self,
        inputs: Inputs,
        *,
        source: Source = NO_SOURCE,
        group: str = "",
        environment: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        priority: int | None = None,
        cache_group: str = "",
        on_setup_error: Literal["refuse", "run"] = "refuse",
        strict: bool = False,
        warnings: Sequence[str] = (),
        idempotency_key: str = "",
    ) -> CreatedRuns:
        """Create all runs of a configuration file whose `when` matches the source's branch, tag or ref.

        A `priority` (-100 to 100) overrides those of the file. The runs use the caches of `cache_group`, such as
        /project/<id>; default: of their own project or user. Raises ClientError, also for an invalid file, unless
        `on_setup_error` is `run`, which creates a run in phase setuperror instead. `strict` turns warnings into errors,
        also `warnings`: those of the caller, which the answer names with those of the service.
        `idempotency_key` works as in `create`.
        """
        body = {
            **_resolved_from(inputs),
            "group": group,
            **asdict(source),
            "environment": environment or {},
            "annotations": annotations or {},
            "priority": priority,
            **({"cache_group": cache_group} if cache_group else {}),
            "on_setup_error": on_setup_error,
            "strict": strict,
            **({"warnings": list(warnings)} if warnings else {}),
        }
        answer = await self._session.write("POST", "/createruns", body, _RunsAnswer, idempotency_key=idempotency_key)
        return CreatedRuns(tuple(one.run for one in answer.runs), answer.skipped, answer.warnings)

    async def get(self, run_id: str, *, at_least: str = "", at: str = "") -> Run:
        """Return a run; with `at_least` (a commit's position) as of that commit or later. Raises ClientError.

        With `at` as it was then: at a time with its zone (ISO 8601), or at a position of the log.
        """
        params = {name: value for name, value in (("at_least", at_least), ("at", at)) if value}
        return (await self._session.read(api_path("runs", run_id), _RunAnswer, params)).run

    async def history(self, run_id: str, *, first: int = 1, count: int = 1000) -> RunHistory:
        """Return up to `count` commits (1 to 1000) of a run from the number `first` on, with what each changed.

        `moments()` of the result has the run as of each of them. Raises ClientError.
        """
        params = {"from": str(first), "count": str(count)}
        return await self._session.read(api_path("runs", run_id, "history"), RunHistory, params)

    async def diff(self, run_id: str, vs: str = "", *, at: str = "", vs_at: str = "") -> RunDiff:
        """Return what differs in a run from another one: configuration, environment, outcome, durations.

        `vs` is the id of the other run, or an earlier moment of this one: a time with its zone (ISO 8601) or a position
        of the log. Default: the last successful run before it of the same name and group. `at` and `vs_at` take the
        runs as of a moment. Raises ClientError (not-exist) if there is no such run.
        """
        params = {name: value for name, value in (("vs", vs), ("at", at), ("vs_at", vs_at)) if value}
        return await self._session.read(api_path("runs", run_id, "diff"), RunDiff, params)

    async def preview_restart(
        self, run_id: str, *, from_start: bool = False, tasks: Sequence[str] = (), descendants: bool = False
    ) -> RestartPreview:
        """Return which tasks `restart` with the same arguments would run again and keep, and whether it is possible.

        Raises ClientError.
        """
        flags = {"from_start": from_start, "descendants": descendants}
        params = {"task": list(tasks), **{flag: "1" for flag, on in flags.items() if on}}
        return await self._session.read(api_path("runs", run_id, "restart", "preview"), RestartPreview, params)

    def follow(self, run_id: str) -> Stream[tuple[RunCommit, Run]]:
        """Follow a run from its first commit until it has ended: each commit, and the run as it left it.

        A lost connection is resumed where it broke off, for a bounded time. Leaving the loop closes the stream. Raises
        ClientError.
        """
        return self._session.streams.stream(self._follow(run_id))

    async def _follow(self, run_id: str) -> AsyncGenerator[tuple[RunCommit, Run], None]:
        retries, after, answer, ended = self._session.retries(), "", None, False
        path = api_path("runs", run_id, "history")
        while not ended:
            headers = {"Accept": "text/event-stream", **self._session.own_writes()}
            headers |= {"Last-Event-ID": after} if after else {}
            try:
                async with (
                    self._session.stream(path, {}, headers, silence=SILENCE_SECONDS) as response,
                    aclosing(server_sent_events(response)) as sent,
                ):
                    async for kind, place, data in sent:
                        retries.progressed()
                        if kind == "run":
                            answer = msgspec.json.decode(data)
                        elif kind == "commit":
                            commit, after = decoded(data.encode(), response, RunCommit), place
                            answer = with_changes(answer, commit.changes, commit.removals)
                            yield commit, msgspec.convert(answer["run"], Run)
                        elif kind == "error":
                            raise stream_error(data)
                        ended = ended or kind == "end"
                if not ended:
                    raise ConnectionFailedError("the event stream ended", hint="was the service stopped? try again")
            except ClientError as error:
                await retries.wait(error, begun=bool(after))

    async def by_number(self, group: str, number: int) -> Run:
        """Return the run with this number in its group, or in one above it. Raises ClientError (not-exist)."""
        return (await self._session.read(api_path("runs", "group", group, str(number)), _RunAnswer)).run

    async def why(self, run_id: str) -> Why:
        """Return why the run waits, as its scheduler answers. Raises ClientError (not-exist)."""
        return await self._session.read(api_path("runs", run_id, "why"), Why)

    async def failures(self, run_id: str) -> Failures:
        """Return the failed tasks of a run, each with the end of the log of its failed step. Raises ClientError."""
        return await self._session.read(api_path("runs", run_id, "failures"), Failures)

    async def page(
        self,
        *,
        start: int = 0,
        limit: int = 25,
        cursor: str = "",
        counts: bool = False,
        tasks: bool = False,
        **filters: Unpack[RunFilters],
    ) -> Page:
        """Return a page of runs (at most 40), the latest first unless `ascending`; `start` is the sequence before it.

        A group matches itself and the groups below it. `text` is a run number (`12`, `#12`), the beginning of a
        commit's hash (7 digits or more) or of an id (7, 8, or 15 characters or more), or a part of the name, the group
        or the value of an annotation. `last_run` selects the last run of each group, `waiting_approval` runs with a
        task that waits for its approval. A page can have fewer runs than `limit` although more follow. With `counts`
        the page says how many runs the list has in each phase and with each result, with `tasks` how many tasks of
        each of its runs have each status.

        The `cursor` of a page selects the next page of the same list; it can be combined with `limit`, `counts` and
        `tasks`.
        """
        if cursor:
            more = {flag: "1" for flag, on in (("counts", counts), ("tasks", tasks)) if on}
            return await self._session.read("/runs", Page, {"cursor": cursor, "limit": limit, **more})
        texts = {"name": filters.get("name"), "text": filters.get("text")}
        flags = {
            "counts": counts,
            "tasks": tasks,
            "waitingapproval": filters.get("waiting_approval"),
            "lastrun": filters.get("last_run"),
            "asc": filters.get("ascending"),
        }
        params = {
            **{name: value for name, value in texts.items() if value},
            "group": list(filters.get("groups", ())),
            "phase": [str(phase) for phase in filters.get("phases", ())],
            "result": [str(result) for result in filters.get("results", ())],
            "start": start,
            "limit": limit,
            **{flag: "1" for flag, on in flags.items() if on},
        }
        return await self._session.read("/runs", Page, params)

    async def list(self, **filters: Unpack[RunFilters]) -> AsyncGenerator[RunSummary, None]:
        """Yield all runs that match the filters of `page`, loading page by page."""
        filters |= {
            "groups": tuple(filters.get("groups", ())),
            "phases": tuple(filters.get("phases", ())),
            "results": tuple(filters.get("results", ())),
        }
        start: int | None = 0
        while start is not None:
            page = await self.page(start=start, limit=MAX_PAGE, **filters)
            for run in page.runs:
                yield run
            start = page.next_start

    async def group(self, group: str) -> GroupView:
        """Return the queue of a group, and the times of its last 30 finished runs. Raises ClientError."""
        return await self._session.read(api_path("groups", group), GroupView)

    async def flaky(self, groups: Sequence[str] = ()) -> FlakyList:
        """Return the tasks that failed, and then passed with the same commit and run config, the most frequent first.

        Of these groups and those below them, or of all runs that you may see. Raises ClientError.
        """
        return await self._session.read("/flaky", FlakyList, {"group": list(groups)})

    async def stop(self, run_id: str) -> None:
        """Stop a running run. Raises ClientError (bad-request) when it is not running."""
        await self._act(run_id, {"action_type": "stop"})

    async def cancel(self, run_id: str) -> None:
        """Withdraw a queued run. Raises ClientError (bad-request) when it is not queued."""
        await self._act(run_id, {"action_type": "cancel"})

    async def pause(self, run_id: str) -> None:
        """Pause a run: start no further tasks until `resume`. Raises ClientError (bad-request) when it has ended."""
        await self._act(run_id, {"action_type": "pause"})

    async def resume(self, run_id: str) -> None:
        """Resume a paused run. Raises ClientError (bad-request) when it is not paused."""
        await self._act(run_id, {"action_type": "resume"})

    async def delete(self, run_id: str) -> None:
        """Delete a run that has ended. Raises ClientError; of kind conflict while it has not, or has logs to store."""
        await self._session.write("DELETE", api_path("runs", run_id), None, type(None))

    async def annotate(self, run_id: str, task_id: str, annotations: Mapping[str, str]) -> None:
        """Replace the annotations of a task. Raises ClientError."""
        body = {"action_type": "setannotations", "annotations": annotations}
        await self._act_on_task(run_id, task_id, body)

    async def change_annotations(
        self, run_id: str, task_id: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Mapping[str, str]:
        """Replace the annotations of a task by `change(annotations)`; return the new ones.

        `change` is called again after a concurrent update, so no annotation is lost. Raises ClientError; of kind
        conflict after ten concurrent updates.
        """

        def give_up(error: ClientError, _delay: float) -> None:
            if error.code != "concurrentUpdate":
                raise error

        return await retry(lambda: self._changed_annotations(run_id, task_id, change), ClientError, _CHANGES, give_up)

    async def _changed_annotations(
        self, run_id: str, task_id: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Mapping[str, str]:
        seen = await self._session.read(api_path("runs", run_id), _RunAnswer, {"changegroup": "annotations"})
        task = seen.run.task(task_id)
        noted = change(task.annotations if task is not None else {})
        body = {
            "action_type": "setannotations",
            "annotations": noted,
            "change_groups_update_tokens": seen.change_groups_update_tokens,
        }
        await self._act_on_task(run_id, task_id, body)
        return noted

    async def approve(self, run_id: str, task_id: str) -> None:
        """Approve a task that waits for it. Raises ClientError (bad-request) when it does not."""
        await self._act_on_task(run_id, task_id, {"action_type": "approve"})

    async def _act(self, run_id: str, body: Mapping[str, object]) -> None:
        await self._session.write("PUT", api_path("runs", run_id, "actions"), body, dict[str, str])

    async def _act_on_task(self, run_id: str, task_id: str, body: Mapping[str, object]) -> None:
        path = api_path("runs", run_id, "tasks", task_id, "actions")
        await self._session.write("PUT", path, body, dict[str, str])


def _resolved_from(inputs: Inputs) -> dict[str, object]:
    return {
        "config": {"name": inputs.name, "content": inputs.config, "imports": inputs.imports, "path": inputs.path},
        "variables": inputs.variables,
        "variable_files": _files(inputs.variable_files),
        "secret_files": _files(inputs.secret_files),
    }


def _files(texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "content": text} for name, text in texts.items()]
