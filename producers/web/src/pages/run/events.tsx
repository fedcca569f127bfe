// /ui/runs/ID/events: every commit of a run, with what it changed and what caused it.
import { useMemo, useState } from "preact/hooks";
import type { RunAnswer, RunCommit } from "../../api/types";
import { href, query, setQuery } from "../../app/router";
import { CommitEvents, CommitFacts } from "../../components/commit";
import { Icon } from "../../components/icon";
import { Empty, Failure, Note, PageHead, Skeleton, useTitle } from "../../components/parts";
import { Actor, Mono, Text } from "../../components/text";
import { saidBy } from "../../text/commit";
import { visible } from "../../text/safe";
import { counted, duration, iso } from "../../text/time";
import { zone } from "../../app/preferences";
import { markOf } from "../time/marks";
import { changesOf } from "./changes";
import { told } from "./values";
import { useRun, type Watch } from "./watch";

/** Rows that are added at a time. */
const ROWS = 500;

export function RunEvents({ id }: { id: string }) {
  const watch = useRun(id);
  const latest = watch.latest.value;
  const error = watch.error.value;
  const name = latest?.run.name ?? "";
  useTitle(name ? `Events of ${name}` : "Events");
  if (error && (!latest || (error.status >= 400 && error.status < 500))) return <Failure error={error} retry={watch.reload} />;
  if (!latest) return <Skeleton lines={10} />;
  return (
    <>
      <PageHead title={<>Events of <a href={href(`/runs/${id}`)}><Text value={name} /></a></>}><span class="faint">{counted(watch.count.value, "commit")}{watch.complete.value ? "" : ", reading…"}</span></PageHead>
      <Commits watch={watch} latest={latest} />
    </>
  );
}

function Commits({ watch, latest }: { watch: Watch; latest: RunAnswer }) {
  const [rows, setRows] = useState(ROWS);
  const count = watch.count.value;
  const task = query.value.get("task") ?? "";
  const text = (query.value.get("q") ?? "").toLowerCase();
  const found = useMemo(() => watch.replay.commits.filter((one) => within(one, task, text)), [count, task, text]);
  const tasks = useMemo(() => Object.values(latest.run.tasks).map((one) => one.name).sort(), [latest.run.id]);
  const first = watch.replay.commits[0];
  return (
    <>
      <form class="commit-filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <input type="search" value={text} placeholder="Event, actor or aggregate" aria-label="Filter the commits" onInput={(event) => setQuery({ q: event.currentTarget.value })} />
        <select value={task} aria-label="Commits of a task" onChange={(event) => setQuery({ task: event.currentTarget.value })}>
          <option value="">The run and all tasks</option>
          {tasks.map((one) => <option key={one} value={one}>{visible(one)}</option>)}
        </select>
      </form>
      {found.length === 0 && !watch.complete.value ? (
        <Skeleton lines={10} />
      ) : found.length === 0 ? (
        <Empty title="No commit is like that" />
      ) : (
        <ol class="commits">
          {found.slice(0, rows).map((one) => <li key={one.number}><Commit commit={one} watch={watch} first={first ?? one} /></li>)}
        </ol>
      )}
      {found.length > rows && <p><button type="button" onClick={() => setRows(rows + ROWS)}>Show {counted(Math.min(ROWS, found.length - rows), "more commit")}</button></p>}
    </>
  );
}

function within(commit: RunCommit, task: string, text: string): boolean {
  if (task && commit.task !== task) return false;
  if (!text) return true;
  const all = [commit.aggregate, commit.actor, commit.task, commit.position, commit.commit, saidBy(commit), ...commit.events.map((one) => one.type)];
  return all.some((one) => one.toLowerCase().includes(text));
}

function Commit({ commit, watch, first }: { commit: RunCommit; watch: Watch; first: RunCommit }) {
  const [open, setOpen] = useState(false);
  const since = Date.parse(commit.time) - Date.parse(first.time);
  const mark = markOf(commit);
  return (
    <details class={`commit ${mark ?? ""}`} onToggle={(event) => setOpen((event.currentTarget as HTMLDetailsElement).open)}>
      <summary>
        <span class="faint commit-number">{commit.number}</span>
        <time dateTime={commit.time} title={iso(new Date(commit.time), zone.value)}>{iso(new Date(commit.time), zone.value).slice(11, 23)}</time>
        <span class="faint commit-since">+{duration(since)}</span>
        <strong class="cut">{commit.error ? <span class="failure"><Icon name="warning" /> <Text value={commit.error} /></span> : saidBy(commit)}</strong>
        <span class="cut"><Text value={commit.task} /></span>
        <span class="faint cut"><Actor value={commit.actor} /></span>
      </summary>
      {open && <Opened commit={commit} watch={watch} />}
    </details>
  );
}

function Opened({ commit, watch }: { commit: RunCommit; watch: Watch }) {
  const before = watch.replay.after(commit.number - 1);
  const chain = useMemo(() => causes(commit, watch.replay.commits), [commit]);
  return (
    <div class="commit-open">
      <CommitFacts commit={commit}>
        <div><dd><a href={href(`/runs/${watch.id}`, { at: commit.position, task: commit.task })}>Show the run at this moment</a></dd></div>
      </CommitFacts>
      <h3>Cause</h3>
      <ol class="causes">
        {chain.map((one) => <li key={one.number}><strong>{saidBy(one)}</strong> {one.task && <Text value={one.task} />} <span class="faint">by <Actor value={one.actor} />, {one.position}</span></li>)}
        <li class="faint">{chain.at(-1)?.cause || (chain.length === 0 && commit.cause) ? <>commit <Mono value={(chain.at(-1) ?? commit).cause} />, which is of another run</> : "a request"}</li>
      </ol>
      <h3>Changes</h3>
      {commit.changes.length + commit.removals.length === 0 ? (
        <p class="faint">It changes nothing of what the API answers about the run.</p>
      ) : (
        <table class="changes">
          <thead><tr><th>Field</th><th>Before</th><th>After</th></tr></thead>
          <tbody>
            {changesOf(commit).map(([path, value]) => <tr key={path.join("/")}><td><Mono value={label(path, watch)} /></td><td><Mono value={told(valueAt(before, path))} /></td><td><Mono value={told(value)} /></td></tr>)}
            {commit.removals.map((path) => <tr key={path.join("/")}><td><Mono value={label(path, watch)} /></td><td><Mono value={told(valueAt(before, path))} /></td><td class="faint">removed</td></tr>)}
          </tbody>
        </table>
      )}
      <CommitEvents events={commit.events} />
      {commit.error && <Note icon="warning" tone="failed">This commit is set aside: <Text value={commit.error} /></Note>}
    </div>
  );
}

/** The commits that caused a commit, the nearest first. */
function causes(commit: RunCommit, all: readonly RunCommit[]): RunCommit[] {
  const byId = new Map(all.map((one) => [one.commit, one]));
  const chain: RunCommit[] = [];
  for (let found = byId.get(commit.cause); found && !chain.includes(found); found = byId.get(found.cause)) chain.push(found);
  return chain;
}

/** A path with the names of tasks in place of their ids. */
function label(path: readonly (string | number)[], watch: Watch): string {
  const tasks = watch.latest.peek()?.run.tasks ?? {};
  return path.slice(path[0] === "run" ? 1 : 0).map((one) => tasks[String(one)]?.name ?? String(one)).join(" / ");
}

function valueAt(document: unknown, path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((found, key) => (found === null || typeof found !== "object" ? undefined : (found as Record<string, unknown>)[key]), document);
}
