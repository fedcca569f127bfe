// /ui/events: the log as it comes, from a place or a time, with filters and a pause.
import { useMemo, useRef, useState } from "preact/hooks";
import { type StreamState, useStream } from "../../api/stream";
import { useKey } from "../../app/keys";
import { address, href, setQuery } from "../../app/router";
import { CommitEvents, CommitFacts } from "../../components/commit";
import { Icon } from "../../components/icon";
import { Empty, Failure, Note, PageHead, Skeleton } from "../../components/parts";
import { Actor, Mono, Text } from "../../components/text";
import { Clock } from "../../components/time";
import { saidBy } from "../../text/commit";
import { visible } from "../../text/safe";
import { counted } from "../../text/time";
import { entryOf, shows, type Entry, type LogCommit } from "./commit";

/** Commits that the page keeps; earlier ones are dropped. */
const KEPT = 5000;
/** Rows that are shown, the latest ones. */
const SHOWN = 500;

const KINDS = ["run", "task", "executor", "runconfig"] as const;
const PLACES = [
  { value: "1m", label: "the last minute", minutes: 1 },
  { value: "10m", label: "the last 10 minutes", minutes: 10 },
  { value: "1h", label: "the last hour", minutes: 60 },
  { value: "end", label: "now" },
  { value: "start", label: "the start of the log" },
] as const;

/** What `GET /events` takes for a choice of the address: a duration becomes the time at which it began. */
function placeOf(from: string, now: number): string {
  const found = PLACES.find((one) => one.value === from);
  return found && "minutes" in found ? new Date(now - found.minutes * 60_000).toISOString() : from;
}

export function Events() {
  const from = address.value.query.get("from") || "1m";
  return <Tail key={from} from={from} />;
}

function Tail({ from }: { from: string }) {
  const { query } = address.value;
  const filter = { kind: query.get("kind") ?? "", text: query.get("q") ?? "" };
  const place = useMemo(() => placeOf(from, Date.now()), [from]);
  const entries = useRef<Entry[]>([]);
  const [paused, setPaused] = useState<Entry[] | null>(null);
  const [, setCount] = useState(0);
  const [state, setState] = useState<StreamState>({ state: "connecting" });
  useStream(`events ${place}`, {
    path: "/events",
    query: { from: place },
    onState: setState,
    onEvents: (events) => {
      const arrived = events.flatMap(({ event, data }) => entryOf(event, data) ?? []);
      entries.current = [...entries.current, ...arrived].slice(-KEPT);
      setCount((count) => count + arrived.length);
    },
  });
  const toggle = (): void => setPaused(paused ? null : entries.current);
  useKey("p", "Pause, and go on", toggle);
  const shown = paused ?? entries.current;
  const found = shown.filter((entry) => shows(filter, entry));
  const behind = paused ? entries.current.length - paused.length : 0;
  const live = state.state === "live";
  return (
    <>
      <PageHead
        title="Events"
        actions={
          <button type="button" aria-pressed={paused !== null} onClick={toggle}>
            <Icon name={paused ? "play" : "pause"} />{paused ? `Go on${behind ? ` (${counted(behind, "new commit")})` : ""}` : "Pause"}
          </button>
        }
      >
        <span class={`state ${paused ? "warning" : live ? "success" : "neutral"}`}>{paused ? "Paused" : live ? "Live" : "Connecting"}</span>
      </PageHead>
      <Filters from={from} />
      {state.state === "refused" ? (
        <Failure error={state.error} />
      ) : found.length ? (
        <>
          <ol class="log-commits">{found.slice(-SHOWN).reverse().map((entry) => <Row key={entry.id} entry={entry} />)}</ol>
          {found.length > SHOWN && <p class="faint">The latest {SHOWN} of {counted(found.length, "commit")} are shown; a filter or a place shows others.</p>}
        </>
      ) : live ? (
        <Empty icon="clock" title={shown.length ? "No commit is like that" : "Nothing has happened since"}><p class="faint">New commits appear here as they are appended.</p></Empty>
      ) : (
        <Skeleton />
      )}
    </>
  );
}

function Filters({ from }: { from: string }) {
  const { query } = address.value;
  const known = PLACES.some((one) => one.value === from);
  const [place, setPlace] = useState(known ? "" : from);
  return (
    <form
      class="filter-line event-filters"
      onSubmit={(event) => {
        event.preventDefault();
        setQuery({ from: place.trim() }, { replace: false });
      }}
    >
      <span class="search">
        <Icon name="search" />
        <input type="search" aria-label="Filter the commits" placeholder="Event, aggregate, actor, any text" value={query.get("q") ?? ""} onInput={(event) => setQuery({ q: event.currentTarget.value })} />
      </span>
      <select aria-label="Aggregates" value={query.get("kind") ?? ""} onChange={(event) => setQuery({ kind: event.currentTarget.value })}>
        <option value="">All aggregates</option>
        {KINDS.map((kind) => <option key={kind} value={kind}>{kind}</option>)}
      </select>
      <select aria-label="From" value={known ? from : "other"} onChange={(event) => event.currentTarget.value !== "other" && setQuery({ from: event.currentTarget.value }, { replace: false })}>
        {PLACES.map((one) => <option key={one.value} value={one.value}>From {one.label}</option>)}
        <option value="other">From a place or time</option>
      </select>
      <span class="event-place">
        <input aria-label="A place or time of the log" placeholder="2026-11-29T18:40:00Z, 1:812,40" value={place} onInput={(event) => setPlace(event.currentTarget.value)} />
        <button type="submit" disabled={!place.trim()}>Go there</button>
      </span>
    </form>
  );
}

function Row({ entry }: { entry: Entry }) {
  const [open, setOpen] = useState(false);
  const { commit, unreadable } = entry;
  if (!commit) return <li><Note icon="warning" tone="failed">{unreadable.position}: <Text value={unreadable.error?.message ?? "cannot be read"} /> <Mono value={unreadable.subject} /></Note></li>;
  return (
    <li>
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>
          <Clock at={commit.time} />
          <strong class="cut">{saidBy(commit)}</strong>
          <code class="cut" title={visible(commit.aggregate)}>{visible(commit.aggregate.replace(/^([a-z]+\/[0-9a-f]{8})-[0-9a-f-]+$/, "$1"))}</code>
          <span class="cut faint"><Actor value={commit.actor} /></span>
          <code class="faint">{commit.position}</code>
        </summary>
        {open && <Opened commit={commit} />}
      </details>
    </li>
  );
}

function Opened({ commit }: { commit: LogCommit }) {
  const [kind, id = ""] = commit.aggregate.split("/");
  return (
    <div class="log-commit-open">
      <CommitFacts commit={commit}>
        {kind === "run" && <div><dd><a href={href(`/runs/${id}/events`)}>Events of this run</a></dd></div>}
        <div><dt>Cause</dt><dd>{commit.cause ? <><Mono value={commit.cause} /> <button type="button" class="small" onClick={() => setQuery({ q: commit.cause })}>Find it</button></> : "a request"}</dd></div>
      </CommitFacts>
      <CommitEvents events={commit.events} />
    </div>
  );
}
