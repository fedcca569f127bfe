// A log with its tools: find, go to a line, wrap, times, follow, download.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { signal } from "@preact/signals";
import { API, ApiError, get } from "../../api/client";
import { useKey } from "../../app/keys";
import { remembered, zone } from "../../app/preferences";
import { address, href, navigate, queryOf, type Query } from "../../app/router";
import { Icon } from "../../components/icon";
import { Empty, Failure } from "../../components/parts";
import { visible } from "../../text/safe";
import { counted } from "../../text/time";
import { queryOfLog, type LogKey } from "./lines";
import type { Line } from "./line-parser";
import { rowBelow, showTime } from "./rows";
import { ALL, LogWindow, type Status } from "./window";

const wrap = remembered<"yes" | "no">("log-wrap", ["yes", "no"], "no");
const times = remembered<"yes" | "no">("log-times", ["yes", "no"], "no");

type Props = {
  log: LogKey;
  /** Whether the step has ended: nothing is followed then. */
  ended: boolean;
  /** The moment at which the log is clipped; null: now. */
  at: string | null;
  /** The page of this log alone, where it is shown inside another page. */
  own?: string;
};

export function LogView({ log, ended, at, own }: Props) {
  const view = useRef<HTMLDivElement>(null);
  const rows = useRef<HTMLDivElement>(null);
  const shown = useRef<LogWindow | null>(null);
  const [status, setStatus] = useState<Status | null>(null);
  const key = JSON.stringify([log, at]);
  useEffect(() => {
    const [scroll, body] = [view.current, rows.current];
    if (!scroll || !body) return;
    body.replaceChildren();
    setStatus(null);
    const found = new LogWindow(log, scroll, body, { ended, at, onStatus: setStatus });
    shown.current = found;
    const lines = linesOf(address.peek().hash);
    void found.open(lines ? lines.from - 1 : null).then(() => mark(body, linesOf(address.peek().hash)));
    return () => {
      shown.current = null;
      found.close();
    };
  }, [key]);
  const chosen = linesOf(address.value.hash);
  useEffect(() => {
    if (rows.current) mark(rows.current, chosen);
  }, [chosen?.from, chosen?.to, status?.first, status?.last]);
  useEffect(() => {
    // An address that leads to a line which is not in the document, in a log that is shown already.
    if (chosen && status?.total && !shown.current?.row(chosen.from - 1)) void shown.current?.go(chosen.from - 1);
  }, [address.value.hash]);
  useEffect(() => {
    for (const one of rows.current?.querySelectorAll<HTMLElement>("[data-at]") ?? []) showTime(one);
  }, [zone.value]);
  const go = (line: number | null): void => void shown.current?.go(line);
  useKey("e", "Go to the end of the log", () => go(null), "Log");
  useKey("b", "Go to the beginning of the log", () => go(0), "Log");
  useKey("w", "Wrap long lines", () => toggle(wrap), "Log");
  return (
    <div class="log">
      <Tools log={log} status={status} own={own} go={go} rows={rows} />
      <div
        ref={view}
        class={`log-view ${wrap.value === "yes" ? "wrap" : ""} ${times.value === "yes" ? "times" : ""}`}
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label="Log"
        onClick={onClick}
      >
        {status?.error && !status.total && (status.error.status === 404 ? <NoLog error={status.error} /> : <Failure error={status.error} />)}
        {status?.empty && !status.error && <Empty icon="info" title={at ? "The step had written nothing yet" : "The step wrote nothing"} />}
        <div ref={rows} class="log-rows" />
      </div>
      {status && status.total > 0 && (
        <footer class="log-foot">
          <span>{counted(status.total, "line")}{status.total > ALL && `, ${status.first + 1} to ${status.last} shown`}</span>
          {status.following && <span class={status.lost ? "state failed" : "state running"}><Icon name={status.lost ? "disconnected" : "running"} spin={!status.lost} />{status.lost ? "Disconnected: it goes on where it was" : "Live"}</span>}
          {at && <span class="state warning"><Icon name="clock" />As of the moment shown</span>}
          <span class="push" />
          {!status.pinned && <button type="button" class="small" onClick={() => go(null)}><Icon name="down" />{status.following ? "Follow" : "To the end"}</button>}
        </footer>
      )}
    </div>
  );
}

function NoLog({ error }: { error: ApiError }) {
  return <Empty icon="info" title={error.message}>{error.hint && <p class="faint">{visible(error.hint)}</p>}</Empty>;
}

function toggle(choice: { value: "yes" | "no" }): void {
  choice.value = choice.value === "yes" ? "no" : "yes";
}

type Lines = { from: number; to: number };

/** `L10` and `L10-L20`: lines from 1 on; null for another fragment. */
export function linesOf(hash: string): Lines | null {
  const found = /^L(\d{1,12})(?:-L(\d{1,12}))?$/.exec(hash);
  if (!found) return null;
  const [one, other] = [Number(found[1]), Number(found[2] ?? found[1])];
  return one > 0 && other > 0 ? { from: Math.min(one, other), to: Math.max(one, other) } : null;
}

function mark(rows: HTMLElement, lines: Lines | null): void {
  // A live collection costs nothing to ask again while none is in it; a query visits all rows.
  const chosen = rows.getElementsByClassName("chosen");
  for (const one of [...chosen]) one.classList.remove("chosen");
  if (!lines) return;
  for (let row = rows.querySelector(`#L${lines.from}`); row && Number(row.id.slice(1)) <= lines.to; row = rowBelow(row)) row.classList.add("chosen");
}

/** A click on a line's number makes the address lead to it; with Shift, to all lines from the last one on. */
function onClick(event: MouseEvent): void {
  const target = event.target as HTMLElement;
  const fold = target.closest<HTMLElement>("[data-folds]");
  if (fold) {
    const open = fold.getAttribute("aria-expanded") !== "true";
    fold.setAttribute("aria-expanded", String(open));
    const group = fold.dataset.folds;
    for (let row = rowBelow(fold.closest(".line") ?? fold); row instanceof HTMLElement && row.dataset.group === group; row = rowBelow(row)) row.hidden = !open;
    return;
  }
  const number = Number(target.closest<HTMLElement>(".line-number")?.dataset.number);
  if (!number) return;
  event.preventDefault();
  const before = event.shiftKey ? linesOf(address.peek().hash) : null;
  const hash = before ? `L${Math.min(before.from, number)}-L${Math.max(before.to, number)}` : `L${number}`;
  navigate(`${location.pathname}${location.search}#${hash}`, { replace: true });
}

type ToolsProps = { log: LogKey; status: Status | null; own: string | undefined; go: (line: number | null) => void; rows: { readonly current: HTMLDivElement | null } };

function Tools({ log, status, own, go, rows }: ToolsProps) {
  const download = `${API}/logs?${queryOf(queryOfLog(log))}`;
  return (
    <div class="log-tools">
      <Find log={log} go={go} rows={rows} loaded={status ? `${status.first} ${status.last}` : ""} />
      <span class="push" />
      <button type="button" class="quiet small" aria-pressed={wrap.value === "yes"} title="Wrap long lines (w)" onClick={() => toggle(wrap)}>Wrap</button>
      <button type="button" class="quiet small" aria-pressed={times.value === "yes"} title="Show when each line was written" onClick={() => toggle(times)}>Times</button>
      <button type="button" class="quiet small" aria-label="To the beginning" title="To the beginning (b)" onClick={() => go(0)}><Icon name="up" /></button>
      <button type="button" class="quiet small" aria-label="To the end" title="To the end (e)" onClick={() => go(null)}><Icon name="down" /></button>
      <a class="button quiet small" href={download} download={`${log.step === "setup" ? "setup" : `step-${log.step}`}.log`} target="_blank" aria-label="Download the log" title="Download the log"><Icon name="download" /></a>
      {own && <a class="button quiet small" href={own} aria-label="Show the log alone" title="Show the log alone"><Icon name="external" /></a>}
    </div>
  );
}

type Hits = { text: string; lines: number[]; next: number | null; error: ApiError | null };

/** Finds in the whole log, by the server; what is found and in the document is highlighted. */
function Find({ log, go, rows, loaded }: { log: LogKey; go: (line: number | null) => void; rows: ToolsProps["rows"]; loaded: string }) {
  const state = useMemo(() => ({ hits: signal<Hits | null>(null), at: signal(0) }), [JSON.stringify(log)]);
  const [text, setText] = useState("");
  const [regex, setRegex] = useState(false);
  const abort = useRef<AbortController | null>(null);
  const hits = state.hits.value;
  const number = hits?.lines[state.at.value];
  const read = async (from: number): Promise<void> => {
    abort.current?.abort();
    const mine = (abort.current = new AbortController());
    const query: Query = { ...queryOfLog(log), q: text, regex, ignore_case: text === text.toLowerCase(), from, count: 100 };
    try {
      const found = await get<{ lines: Line[]; next: number | null }>("/logs/search", query, mine.signal);
      const lines = found.lines.map((one) => one.number);
      const before = from === 0 ? [] : (state.hits.peek()?.lines ?? []);
      state.hits.value = { text, lines: [...before, ...lines], next: found.next, error: null };
      state.at.value = before.length;
      if (lines[0] !== undefined) go(lines[0]);
      else if (found.next !== null) await read(found.next);
    } catch (error) {
      if (mine.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      state.hits.value = { text, lines: [], next: null, error };
    }
  };
  const step = (by: number): void => {
    const found = state.hits.peek();
    if (!found || found.text !== text) return void (text && read(0));
    const to = state.at.peek() + by;
    if (to >= found.lines.length && found.next !== null) return void read(found.next);
    if (!found.lines.length) return;
    state.at.value = (to + found.lines.length) % found.lines.length;
    go(found.lines[state.at.value] ?? null);
  };
  useEffect(() => {
    highlight(rows.current, hits && !hits.error ? hits.text : "", regex, number);
  }, [hits, number, regex, loaded]);
  return (
    <form
      class="log-find"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        step(1);
      }}
    >
      <input
        type="search"
        value={text}
        placeholder="Find in the whole log"
        aria-label="Find in the whole log"
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => {
          setText(event.currentTarget.value);
          if (!event.currentTarget.value) state.hits.value = null;
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || !event.shiftKey) return;
          event.preventDefault();
          step(-1);
        }}
      />
      <button type="button" class="quiet small" aria-pressed={regex} title="Regular expression (RE2)" aria-label="Regular expression" onClick={() => {
        setRegex(!regex);
        state.hits.value = null;
      }}>.*</button>
      {hits && (
        <span class={hits.error ? "failure small" : "faint small"} role="status">
          {hits.error ? visible(hits.error.message) : hits.lines.length ? `${state.at.value + 1} of ${hits.lines.length}${hits.next === null ? "" : "+"}` : "not found"}
        </span>
      )}
      {hits && hits.lines.length > 1 && (
        <>
          <button type="button" class="quiet small" aria-label="Previous line found" onClick={() => step(-1)}><Icon name="up" /></button>
          <button type="button" class="quiet small" aria-label="Next line found" onClick={() => step(1)}><Icon name="down" /></button>
        </>
      )}
    </form>
  );
}

/** Ranges that are highlighted, at most. */
const MAX_RANGES = 2000;

/** Highlights what was found without changing the document, where the browser knows how. */
function highlight(rows: HTMLElement | null, text: string, regex: boolean, current: number | undefined): void {
  for (const one of rows?.querySelectorAll(".line.hit") ?? []) one.classList.remove("hit");
  if (!("highlights" in CSS)) return;
  CSS.highlights.delete("found");
  if (!rows || !text) return;
  if (current !== undefined) rows.querySelector(`#L${current + 1}`)?.classList.add("hit");
  if (regex) return;
  const fold = text === text.toLowerCase();
  const ranges: Range[] = [];
  const walker = document.createTreeWalker(rows, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node && ranges.length < MAX_RANGES; node = walker.nextNode()) {
    const found = fold ? (node.nodeValue ?? "").toLowerCase() : (node.nodeValue ?? "");
    for (let at = found.indexOf(text); at >= 0 && ranges.length < MAX_RANGES; at = found.indexOf(text, at + text.length)) {
      const range = new Range();
      range.setStart(node, at);
      range.setEnd(node, Math.min(at + text.length, node.nodeValue?.length ?? 0));
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

/** The page of a log alone. */
export function logHref(run: string, task: string, step: number | "setup", values: Query = {}): string {
  return href(`/runs/${run}/log/${encodeURIComponent(task)}/${step}`, values);
}
