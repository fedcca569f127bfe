"""Lists of runs, and their counts: a request reads a bounded part of an index, however many runs there are.

A list is a union of *sources*. Each reads one index in the order of sequences, and keeps the runs that the rest of the
query matches. It reads at most `SCANNED` runs: where it has to stop, the page ends, too, so a page can be shorter than
its limit although more follow. The indexes by phase and result leave out successful runs, which are nearly all of them:
a list of these filters an index that has all runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from sqlalchemy import RowMapping, TextClause, text

from runstream import tables
from runstream.api import Count, RunCounts, RunSummary
from runstream.database.rows import run_of
from runstream.database.transaction import Transaction
from runstream.domain.run import RunState
from runstream.errors import BadRequestError
from runstream.run_states import RunPhase, RunResult
from runstream.subjects import group_root
from runstream.tables import JsonText, RunRow

DEFAULT_LIMIT = 25
MAX_LIMIT = 40
SCANNED = 1000
"""Maximum number of runs that one source of a page reads."""
_MIN_SCANNED = 40
"""Minimum for each of several owners, which share `SCANNED`."""
MANY_ROOTS = 100
"""Number of roots from which on a list first looks for those that have its next runs."""
MAX_COUNT = 1000
"""Where counting the runs of a state stops."""
_COUNT_SCANNED = 100
"""Runs of each state that counts read, where an index cannot count."""


_DIGITS = "0123456789abcdef"
_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """A query of runs; empty fields do not filter."""

    groups: tuple[str, ...] = ()
    """Groups, each of which includes the groups below it: `/project/a` has `/project/a/branch/b`, but not
    `/project/ab`."""
    phases: tuple[RunPhase, ...] = ()
    results: tuple[RunResult, ...] = ()
    name: str = ""
    text: str = ""
    """`12` or `#12`: runs of this number; 7 to 64 hexadecimal digits: runs of a commit whose hash begins with them; the
    first 7 or 8 digits of an id, or 15 characters of it or more: runs whose id begins with them; anything else: runs
    with this text in their name, their group or the value of an annotation, in any case."""
    waiting_approval: bool = False
    """Only runs with a task that waits for an approval."""
    last_run: bool = False
    """Only the last matching run of each group."""
    start: int = 0
    """Begin after the run of this sequence; 0 for the first."""
    start_counter: int = 0
    """Begin after this run number, whether that run exists or not; for groups of one root."""
    limit: int = DEFAULT_LIMIT
    """1 to 40."""
    ascending: bool = False

    @property
    def number(self) -> int | None:
        """The run number that `text` is, or None."""
        digits = self.text.removeprefix("#")
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None

    @property
    def commit(self) -> str:
        """The beginning of a commit's hash that `text` is, in lower case; empty if it is none."""
        found = self.text.lower()
        return found if tables.INDEXED_DIGITS <= len(found) <= 64 and {*found} <= {*_DIGITS} else ""

    @property
    def id_range(self) -> tuple[str, str] | None:
        """The first and the last id that begin with `text`; None if it is not the beginning of an id.

        `20261130-1200` is rather a part of a name.
        """
        found = self.text.lower()
        if not (tables.INDEXED_DIGITS <= len(found) <= 8 or 15 <= len(found) <= len(_ID)):
            return None
        if any(one not in (_DIGITS if place == "0" else place) for one, place in zip(found, _ID, strict=False)):
            return None
        rest = _ID[len(found) :]
        return found + rest, found + rest.replace("0", "f")


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of runs, in the order of the query."""

    runs: tuple[RunSummary, ...] = field(default=())
    next_start: int | None = None
    """The `start` of the next page; None on the last one."""
    counts: RunCounts | None = None
    tasks: Mapping[str, Mapping[str, int]] | None = None
    """By the id of the run: how many tasks have each status."""


async def list_runs(transaction: Transaction, query: RunQuery, *, counts: bool = False, tasks: bool = False) -> RunPage:
    """List the matching runs by sequence. Raises BadRequestError for a limit that is out of bounds.

    With `counts` count the runs of the list, with `tasks` the tasks of the runs on the page.
    """
    if not 1 <= query.limit <= MAX_LIMIT:
        raise BadRequestError(
            f"limit {query.limit} is out of bounds", code="invalidLimit", hint=f"use 1 to {MAX_LIMIT}"
        )
    await transaction.execute(IN_ORDER)
    if query.start_counter:
        start = await _start(transaction, query)
        if start is None:
            return RunPage()
        query = replace(query, start=start)
    listing = Listing(query, await _nested(transaction, query.groups))
    if listing.has_many_roots:
        latest = await transaction.rows(listing.first_roots(), listing.values)
        # Only these have runs of this page; without any, the first one stands for none.
        groups = tuple(row["root"] for row in latest) or query.groups[:1]
        every, listing = listing, Listing(replace(query, groups=groups))
    else:
        every = listing
    rows = await transaction.rows(listing.page(), listing.values)
    if (stops := listing.stops()) is not None:
        (stop,) = await transaction.rows(stops, listing.values)
        end = stop["sequence"]
        if end is not None:
            rows = [row for row in rows if (row["sequence"] <= end if query.ascending else row["sequence"] >= end)]
    else:
        end = None
    next_start = rows[query.limit - 1]["sequence"] if len(rows) > query.limit else end
    found = await _counts(transaction, every) if counts else None
    runs = tuple(_summary(row) for row in rows[: query.limit])
    of_tasks = await _task_counts(transaction, [run.id for run in runs]) if tasks else None
    return RunPage(runs, next_start, found, of_tasks)


async def _task_counts(transaction: Transaction, runs: list[str]) -> dict[str, dict[str, int]]:
    counted: dict[str, dict[str, int]] = {run: {} for run in runs}
    for row in await transaction.rows(_TASK_COUNTS, {"runs": runs}):
        counted[row["run_id"]][row["status"]] = row["count"]
    return counted


_TASK_COUNTS = text("""
SELECT run_id, status, count(*) AS count FROM run_tasks WHERE run_id = ANY(CAST(:runs AS text[]))
GROUP BY run_id, status
""")
"""Reads the primary key of run_tasks."""


IN_ORDER = text("""
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
    set_config('plan_cache_mode', 'force_custom_plan', true)
""")
"""Sources read indexes in order and stop early. The planner does not expect that they stop, and would read all; a plan
for any values does not know how many owners and states there are."""


async def _start(transaction: Transaction, query: RunQuery) -> int | None:
    """Return the sequence after which the runs behind a number begin; None if there are none (runs_by_counter)."""
    sign, order, step = (">", "ASC", -1) if query.ascending else ("<", "DESC", 1)
    found = text(
        f"SELECT sequence FROM runs WHERE counter_group = ANY(CAST(:roots AS text[])) AND counter {sign} :counter "  # noqa: S608
        f"ORDER BY counter {order} LIMIT 1"
    )
    roots = [group_root(group) for group in query.groups]
    row = await transaction.first(found, {"roots": roots, "counter": query.start_counter})
    return row["sequence"] + step if row is not None else None


async def _nested(transaction: Transaction, groups: Iterable[str]) -> set[str]:
    """Return the groups, other than roots, that have groups below them (runs_by_group)."""
    inner = [group for group in map(_bare, groups) if group.count("/") > 2]
    if not inner:
        return set()
    rows = await transaction.rows(_NESTED, {"groups": inner})
    return {row["value"] for row in rows}


_NESTED = text("""
SELECT value FROM unnest(CAST(:groups AS text[])) AS inner_group (value)
WHERE EXISTS (SELECT FROM runs WHERE "group" >= value || '/' AND "group" < value || '0')
""")


def _above(group: str) -> Iterator[str]:
    """Yield the groups above a group."""
    while "/" in group:
        group = group.rpartition("/")[0]
        yield group


def _bare(group: str) -> str:
    return group.rstrip("/")


def _summary(row: RowMapping) -> RunSummary:
    run = run_of(RunRow(**{name: row[name] for name in RunRow._fields}), ())
    return summary_of(run, tuple(row["waiting"]))


_SUMMARIZED = {*RunSummary.__struct_fields__} & {*RunState.__struct_fields__} - {"phase", "result"}


def summary_of(run: RunState, waiting: tuple[str, ...]) -> RunSummary:
    """Return the summary of a run; `waiting` are the names of its tasks that wait for an approval."""
    same = {name: getattr(run, name) for name in _SUMMARIZED}
    return RunSummary(
        **same,
        creation_time=run.enqueue_time,
        run_config_id=run.run_config,
        phase=run.phase,
        result=run.result,
        tasks_waiting_approval=waiting,
    )


_COLUMNS = ", ".join(
    f'listed."{name}"::text AS "{name}"' if isinstance(tables.runs.c[name].type, JsonText) else f'listed."{name}"'
    for name in RunRow._fields
)
_WAITING = "ARRAY(SELECT name FROM run_tasks WHERE run_id = listed.id AND waiting_approval ORDER BY name) AS waiting"
_STATES = "unnest(CAST(:phases AS text[]), CAST(:results AS text[])) AS state (phase, result)"
_OF_STATE = f"phase = state.phase AND result = state.result AND ({tables.NOT_SUCCESS})"
_SUCCESS = (RunPhase.FINISHED.value, RunResult.SUCCESS.value)
_IS_SUCCESS = "phase = 'finished' AND result = 'success'"
_BELOW = """EXISTS (
    SELECT FROM unnest(CAST(:nested AS text[])) AS upper_group (value)
    WHERE runs."group" >= value || '/' AND runs."group" < value || '0'
)"""
"""Groups below these, as a range of the index: `0` is the character after `/`."""
_WITHIN = """EXISTS (
    SELECT FROM unnest(CAST(:groups AS text[])) AS upper_group (value)
    WHERE runs."group" = value OR (runs."group" >= value || '/' AND runs."group" < value || '0')
)"""
_IS_WAITING = "EXISTS (SELECT FROM run_tasks WHERE run_id = {runs}.id AND waiting_approval)"
_HAS_TEXT = r"""({runs}.name ILIKE :pattern OR {runs}."group" ILIKE :pattern OR CASE
    WHEN {runs}.annotations::text NOT ILIKE :json_pattern THEN false
    WHEN strpos({runs}.annotations::text, '\u0000') > 0 THEN false
    ELSE EXISTS (SELECT FROM json_each_text({runs}.annotations) AS note WHERE note.value ILIKE :pattern)
END)"""
_OF_COMMIT = f"CASE WHEN {tables.HAS_COMMIT} THEN starts_with(annotations ->> 'commit_sha', :commit) ELSE false END"
_OF_NUMBER = "({runs}.counter = :number AND {runs}.numbered)"
_OF_ID = "{runs}.id BETWEEN :first_id AND :last_id"
"""Ids differ in their digits alone, so that every collation orders them alike."""
_IN_STATES = "{runs}.phase = ANY(CAST(:in_phases AS text[])) AND {runs}.result = ANY(CAST(:in_results AS text[]))"
_LATER_NOT_SUCCESS = re.sub("phase|result", r"later.\g<0>", tables.NOT_SUCCESS)
_FEW = {
    "number": "counter = :number AND numbered AND counter_group IN (SELECT root FROM counters WHERE last >= :number)",
    "commit": f"{tables.HAS_COMMIT} AND {tables.COMMIT} = :commit_start",
    "id": "id BETWEEN :first_id AND :last_id",
    "waiting": "id IN (SELECT run_id FROM run_tasks WHERE waiting_approval)",
}
"""What selects few runs: runs_by_counter, runs_by_commit, runs_pkey, run_tasks_waiting."""
_FOUND_BY = {"number": _OF_NUMBER, "commit": _OF_COMMIT, "id": f"({_OF_ID})"}
"""What a text finds by these, as a condition on a run."""
_OWNERS = {"roots": "counter_group", "leaves": '"group"', "nested_roots": "counter_group"}
"""The owners of runs: runs_by_root, runs_by_group, and both by state."""


@dataclass(frozen=True, slots=True)
class _RunSource:
    """The runs that one index gives, and what it does not answer of the query."""

    condition: str = "true"
    """What selects the runs by the index; `owner.value` is an owner, `state` a phase and a result."""
    owners: str = ""
    """The name of the array of owners; empty for none."""
    by_state: bool = False
    success: bool = False
    """Only successful runs, which the index does not tell apart."""
    others: tuple[str, ...] = ()
    """Conditions that the index does not answer."""
    few: bool = False
    """It gives few runs, all of which are read."""

    @property
    def bounded(self) -> bool:
        """True if it may have to stop before its end: not all runs that it gives match."""
        return bool(self.others or self.success) and not self.few

    def read(self, window: str, matching: str = "") -> str:
        """Return it as items of FROM with the name `runs`.

        `window` orders and bounds what is read of each owner and state, `matching` selects from that.
        """
        items = [f"unnest(CAST(:{self.owners} AS text[])) AS owner (value)"] if self.owners else []
        items += [_STATES] if self.by_state else []
        read = f"(SELECT * FROM runs WHERE {self.condition} {window}) AS runs"  # noqa: S608
        items.append(f"LATERAL (SELECT runs.* FROM {read} {matching}) AS runs" if matching else f"LATERAL {read}")  # noqa: S608
        return " CROSS JOIN ".join(items)

    def where(self) -> str:
        """Return what its runs have to match."""
        return " AND ".join((*self.others, *([_IS_SUCCESS] if self.success else []))) or "true"


class Listing:
    """The statements of one query and their values."""

    def __init__(self, query: RunQuery, nested: Iterable[str] = ()) -> None:
        """`nested` are groups of the query, other than roots, that have groups below them."""
        self.query = query
        self.nested = sorted(nested)
        groups = {_bare(group) for group in query.groups}
        self._anywhere = not groups or any(group.count("/") < 2 for group in groups)
        outer = sorted(group for group in groups if groups.isdisjoint(_above(group)))
        roots = [group for group in outer if group.count("/") == 2]
        leaves = [group for group in outer if group.count("/") > 2]
        within = [group for group in leaves if group in self.nested]
        wanted = query.phases or tuple(RunPhase), query.results or tuple(RunResult)
        states = [(phase.value, result.value) for phase in wanted[0] for result in wanted[1]]
        self._rare = [state for state in states if state != _SUCCESS]
        self._success = _SUCCESS in states
        pattern = f"%{_like(query.text)}%"
        self.values: Mapping[str, Any] = {
            "limit": query.limit + 1,
            "start": query.start,
            "groups": outer,
            "roots": roots,
            "leaves": leaves,
            "nested": within,
            "nested_roots": sorted({group_root(group) for group in within}),
            "phases": [phase for phase, _ in self._rare],
            "results": [result for _, result in self._rare],
            "in_phases": [phase.value for phase in wanted[0]],
            "in_results": [result.value for result in wanted[1]],
            "name": query.name,
            "name_start": query.name[: tables.INDEXED_CHARACTERS],
            "pattern": pattern,
            "json_pattern": f"%{_like(orjson.dumps(query.text)[1:-1].decode())}%",
            "number": query.number,
            "first_id": (query.id_range or ("", ""))[0],
            "last_id": (query.id_range or ("", ""))[1],
            "commit": query.commit,
            "commit_start": query.commit[: tables.INDEXED_DIGITS],
        }
        few = {"number": query.number is not None, "commit": bool(query.commit), "id": query.id_range is not None}
        self._few = [name for name, on in few.items() if on] or (["waiting"] if query.waiting_approval else [])
        self._by_name = bool(query.name) and self._anywhere and not self._few
        self._owners = [] if self._anywhere else [name for name in _OWNERS if self.values[name]]
        many = sum(len(self.values[name]) for name in self._owners) or 1
        self._scanned = max(_MIN_SCANNED, SCANNED // many)

    @property
    def has_many_roots(self) -> bool:
        """True if the list is of all runs of many roots: `first_roots` then says which of them to read."""
        query = self.query
        filters = query.phases or query.results or query.name or query.text or query.waiting_approval or query.last_run
        return not filters and self._owners == ["roots"] and len(self.values["roots"]) > MANY_ROOTS

    def first_roots(self) -> TextClause:
        """Select the roots that the page can be of: those whose first run is among the first ones (runs_by_root)."""
        return text(f"""
        SELECT owner.value AS root FROM unnest(CAST(:roots AS text[])) AS owner (value) CROSS JOIN LATERAL (
            SELECT sequence FROM runs WHERE counter_group = owner.value {self._after}
            ORDER BY sequence {self._order} LIMIT 1
        ) AS first ORDER BY first.sequence {self._order} LIMIT :limit
        """)  # noqa: S608

    def page(self) -> TextClause:
        """Select one run more than the limit, to know whether there is a next page."""
        found = " UNION ALL ".join(map(self._best_of, self._sources()))
        return text(
            f"SELECT {_COLUMNS}, {_WAITING} FROM ({found}) AS listed "  # noqa: S608
            f"ORDER BY listed.sequence {self._order} LIMIT :limit"
        )

    def _best_of(self, source: _RunSource) -> str:
        """Select the first matching runs of a source."""
        best = f"WHERE {source.where()} {self._after} ORDER BY runs.sequence {self._order} LIMIT :limit"
        if source.owners and len(self.values[source.owners]) > 1:
            # Merged first, checked in order until the page is full: most runs of most owners are behind it.
            read = (
                f"SELECT runs.* FROM {source.read(self._window(source))} ORDER BY runs.sequence {self._order} OFFSET 0"  # noqa: S608
            )
            return f"(SELECT * FROM ({read}) AS runs {best})"  # noqa: S608
        in_order = f"ORDER BY runs.sequence {self._order} LIMIT :limit"
        return f"(SELECT runs.* FROM {source.read(self._window(source), best)} {in_order})"  # noqa: S608

    def stops(self) -> TextClause | None:
        """Select where the first source has to stop, null if none has; None for a list whose sources all end."""
        window = f"{self._after} ORDER BY sequence {self._order} OFFSET {self._scanned - 1} LIMIT 1"
        stops = " UNION ALL ".join(
            f"SELECT runs.sequence FROM {source.read(window)}"  # noqa: S608
            for source in self._sources()
            if source.bounded
        )
        first = "min" if self.query.ascending else "max"
        return text(f"SELECT {first}(sequence) AS sequence FROM ({stops}) AS stops") if stops else None  # noqa: S608

    def counts(self) -> tuple[TextClause, Mapping[str, Any]]:
        """Select by phase and result: how many runs match and how many were read, each up to a bound."""
        every = Listing(replace(self.query, phases=(), results=(), start=0, ascending=False), self.nested)
        return text(" UNION ALL ".join(map(every._counted, every._sources(by_state=True)))), every.values

    def _counted(self, source: _RunSource) -> str:
        simple = not (self.query.name or self.query.text or self.query.waiting_approval or self.query.last_run)
        bound = (2 if source.success else 1) * MAX_COUNT + 1 if simple else _COUNT_SCANNED
        window = "OFFSET 0" if source.few else f"ORDER BY sequence DESC LIMIT {bound}"
        count = f"count(*) FILTER (WHERE {source.where()}) AS matching"
        read = f"FROM (SELECT runs.* FROM {replace(source, by_state=False).read(window)} LIMIT {bound}) AS runs"  # noqa: S608
        if source.by_state:
            return (
                f"SELECT state.phase, state.result, matching, more FROM {_STATES} "  # noqa: S608
                f"CROSS JOIN LATERAL (SELECT {count}, count(*) >= {bound} AS more {read}) AS counted"
            )
        if source.success:
            return f"SELECT 'finished' AS phase, 'success' AS result, {count}, count(*) >= {bound} AS more {read}"
        more = f"sum(count(*)) OVER () >= {bound} AS more"
        return f"SELECT phase, result, {count}, {more} {read} GROUP BY phase, result"

    @property
    def _order(self) -> str:
        return "ASC" if self.query.ascending else "DESC"

    @property
    def _after(self) -> str:
        sign = ">" if self.query.ascending else "<"
        return f"AND sequence {sign} :start" if self.query.start else ""

    def _window(self, source: _RunSource) -> str:
        if source.few:
            return "OFFSET 0"  # planned by itself: not in the order of all runs, nor from where the page begins
        return f"{self._after} ORDER BY sequence {self._order} LIMIT {self._scanned if source.bounded else ':limit'}"

    def _sources(self, *, by_state: bool = False) -> Iterator[_RunSource]:
        """Return the sources of the list; with `by_state` those that tell states apart even if all are wanted."""
        query = self.query
        some_states = [_IN_STATES.replace("{runs}", "runs")] if query.phases or query.results else []
        others = [*self._conditions("runs")]
        if query.last_run:
            others.append(self._is_last())
        within = [_WITHIN] if query.groups else []
        if self._few or self._by_name:
            rest = (*others, *within, *some_states)
            for place, name in enumerate(self._few):
                # A run that several of them find is of the first one.
                again = [f"NOT {_FOUND_BY[earlier].replace('{runs}', 'runs')}" for earlier in self._few[:place]]
                yield _RunSource(_FEW[name], others=(*rest, *again), few=True)
            if self._by_name:
                yield _RunSource(f"{tables.INDEXED_NAME} = :name_start", others=rest)
            return
        for owner in self._owners or [""]:
            chosen = f"{_OWNERS[owner]} = owner.value" if owner else "true"
            rest = (*others, *([_BELOW] if owner == "nested_roots" else within if self._anywhere else []))
            if not some_states and not by_state:
                yield _RunSource(chosen, owner, others=rest)
                continue
            if self._rare:
                yield _RunSource(f"{chosen} AND {_OF_STATE}", owner, by_state=True, others=rest)
            if self._success:
                yield _RunSource(chosen, owner, success=True, others=rest)

    def _is_last(self) -> str:
        """Return the condition that no later run of the group matches (runs_by_group, runs_by_group_and_state)."""
        later = ['later."group" = runs."group"', "later.sequence > runs.sequence"]
        if self._success:
            later.append(_IN_STATES.replace("{runs}", "later"))
        else:
            later += ["later.phase = state.phase", "later.result = state.result", f"({_LATER_NOT_SUCCESS})"]
        conditions = " AND ".join((*later, *self._conditions("later")))
        # Not `NOT EXISTS`, which the planner would make a join with all later runs; nor a join with the states.
        found = f"SELECT true FROM runs AS later WHERE {conditions} ORDER BY later.sequence LIMIT 1"  # noqa: S608
        if self._success:
            return f"({found}) IS NULL"
        return f"(SELECT true FROM {_STATES} CROSS JOIN LATERAL ({found}) AS later LIMIT 1) IS NULL"  # noqa: S608

    def _conditions(self, runs: str) -> Iterator[str]:
        """Return the conditions about single runs, other than groups and states."""
        query = self.query
        if query.name and not (runs == "runs" and self._by_name and len(query.name) < tables.INDEXED_CHARACTERS):
            yield f"{runs}.name = :name"
        if query.text:
            either = [_FOUND_BY[name] for name in self._few if name in _FOUND_BY] or [_HAS_TEXT]
            yield f"({' OR '.join(either)})".replace("{runs}", runs)
        if query.waiting_approval:
            yield _IS_WAITING.replace("{runs}", runs)


def _like(part: str) -> str:
    """Return the text as a part of a LIKE pattern."""
    return part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def _counts(transaction: Transaction, listing: Listing) -> RunCounts:
    statement, values = listing.counts()
    phases: dict[str, Count] = {phase.value: Count(0, more=False) for phase in RunPhase}
    results: dict[str, Count] = {result.value: Count(0, more=False) for result in RunResult}
    for row in await transaction.rows(statement, values):
        for counted, word in ((phases, row["phase"]), (results, row["result"])):
            before = counted[word]
            number = before.count + row["matching"]
            more = before.more or row["more"] or number > MAX_COUNT
            counted[word] = Count(min(number, MAX_COUNT), more=more)
    return RunCounts(phases, results)
