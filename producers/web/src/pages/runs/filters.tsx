// The filters of the run list; all of them are in the address.
import { useEffect, useRef, useState } from "preact/hooks";
import type { RunCounts } from "../../api/types";
import { address, setQuery } from "../../app/router";
import { Icon } from "../../components/icon";
import { Cut } from "../../components/text";

const TYPING_MS = 200;

type State = { label: string; phase: string; result: string; waiting?: boolean };

/** The states that the list can be of; each is a phase, a result, or a wait for an approval. */
const STATES: readonly State[] = [
  { label: "All", phase: "", result: "" },
  { label: "Running", phase: "running", result: "" },
  { label: "Queued", phase: "queued", result: "" },
  { label: "Needs approval", phase: "", result: "", waiting: true },
  { label: "Failed", phase: "", result: "failed" },
  { label: "Success", phase: "", result: "success" },
  { label: "Stopped", phase: "", result: "stopped" },
  { label: "Cancelled", phase: "cancelled", result: "" },
  { label: "Setup error", phase: "setuperror", result: "" },
];

/** The parameters of `GET /runs` that the address has. */
export function filtersOf(query: URLSearchParams): Record<string, string | string[] | boolean> {
  return {
    text: query.get("text") ?? "",
    group: query.getAll("group"),
    name: query.get("name") ?? "",
    phase: query.getAll("phase"),
    result: query.getAll("result"),
    waitingapproval: query.has("waitingapproval"),
    lastrun: query.has("lastrun"),
    start: query.get("start") ?? "",
  };
}

export function isFiltered(query: URLSearchParams): boolean {
  return ["text", "group", "name", "phase", "result", "waitingapproval"].some((name) => query.has(name));
}

function countOf(state: State, counts: RunCounts | null | undefined): string {
  const found = state.phase ? counts?.phases[state.phase] : state.result ? counts?.results[state.result] : undefined;
  return found ? `${found.count.toLocaleString("en")}${found.more ? "+" : ""}` : "";
}

export function Filters({ counts }: { counts: RunCounts | null | undefined }) {
  const { query } = address.value;
  const chosen = (state: State): boolean =>
    (query.get("phase") ?? "") === state.phase && (query.get("result") ?? "") === state.result && query.has("waitingapproval") === (state.waiting ?? false);
  const choose = (state: State): void => setQuery({ phase: state.phase, result: state.result, waitingapproval: state.waiting ?? false, start: null }, { replace: false });
  return (
    <div class="run-filters">
      <div class="filter-line">
        <TextFilter />
        <label class="check">
          <input type="checkbox" checked={query.has("lastrun")} onChange={(event) => setQuery({ lastrun: event.currentTarget.checked, start: null }, { replace: false })} />
          Only the last of each group
        </label>
        {query.getAll("group").map((group) => (
          <button key={group} type="button" class="small" onClick={() => setQuery({ group: query.getAll("group").filter((one) => one !== group), start: null })}>
            <Cut value={`Group ${group}`} /><Icon name="cross" /><span class="unseen">Remove this filter</span>
          </button>
        ))}
      </div>
      <div class="states" role="group" aria-label="State">
        {STATES.map((state) => {
          const count = countOf(state, counts);
          return (
            <button key={state.label} type="button" class="quiet small" aria-pressed={chosen(state)} onClick={() => choose(state)}>
              {state.label}{count && count !== "0" && <span class="count">{count}</span>}
            </button>
          );
        })}
      </div>
    </div>
  );
}

function TextFilter() {
  const inAddress = address.value.query.get("text") ?? "";
  const [text, setText] = useState(inAddress);
  const sent = useRef(inAddress);
  useEffect(() => {
    // Another address, not our own typing: a step back, a link.
    if (inAddress !== sent.current) setText(inAddress);
    sent.current = inAddress;
  }, [inAddress]);
  useEffect(() => {
    if (text === sent.current) return;
    const timer = setTimeout(() => {
      sent.current = text;
      setQuery({ text: text.trim(), start: null });
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <span class="search">
      <Icon name="search" />
      <input type="search" aria-label="Filter runs" placeholder="Name, group, branch, commit, message, #number" value={text} onInput={(event) => setText(event.currentTarget.value)} />
    </span>
  );
}

