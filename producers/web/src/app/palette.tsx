// The palette: one field that leads to a run, a project or a page.
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get } from "../api/client";
import type { RunsAnswer, RunSummaryShape } from "../api/types";
import { Icon, type IconName } from "../components/icon";
import { Dialog } from "../components/overlay";
import { runState, StateBadge } from "../components/state";
import { Text } from "../components/text";
import { runRef } from "../text/run";
import { href, navigate } from "./router";

const open = signal(false);

export function openPalette(): void {
  open.value = true;
}

type Hit = { key: string; to: string; label: string; detail: string; icon?: IconName; run?: RunSummaryShape };

const PAGES: readonly [string, string][] = [
  ["Runs", "/"],
  ["Projects", "/p"],
  ["Flaky tasks", "/flaky"],
  ["Events", "/events"],
  ["Executors", "/executors"],
  ["Operations", "/ops"],
];
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const DELAY = 150;

function pagesFor(text: string): Hit[] {
  return PAGES.filter(([label]) => label.toLowerCase().includes(text.toLowerCase())).map(([label, path]) => ({ key: path, to: href(path), label, detail: "page", icon: "right" }));
}

/** Whether a run has the text in its number, id, name, group, commit, branch or message. */
function has(run: RunSummaryShape, text: string): boolean {
  const { annotations } = run;
  const places = [`#${run.counter}`, run.id, run.name, run.group, annotations.commit_sha, annotations.branch, annotations.message];
  return places.some((one) => one?.toLowerCase().includes(text.toLowerCase()));
}

async function runsFor(text: string, abort: AbortSignal): Promise<Hit[]> {
  const found = await get<RunsAnswer>("/runs", { limit: 40 }, abort);
  const runs = found.runs.filter((one) => has(one, text)).slice(0, 12);
  const hits = runs.map((run): Hit => ({ key: run.id, to: href(`/runs/${run.id}`), label: run.name, detail: runRef(run), run }));
  if (UUID.test(text) && !runs.some((one) => one.id === text)) hits.unshift({ key: text, to: href(`/runs/${text}`), label: text, detail: "run", icon: "right" });
  return hits;
}

export function Palette() {
  return open.value ? <Finder /> : null;
}

function Finder() {
  const [text, setText] = useState("");
  const [found, setFound] = useState<Hit[]>([]);
  const [chosen, setChosen] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const close = (): void => {
    open.value = false;
  };
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(() => {
      runsFor(text.trim(), abort.signal).then(setFound, (error: unknown) => {
        if (!abort.signal.aborted && !(error instanceof ApiError)) throw error;
      });
    }, text ? DELAY : 0);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text]);
  const hits = [...(text ? pagesFor(text.trim()) : []), ...found.filter((one) => !text || !one.run || has(one.run, text.trim())), ...(text ? [] : pagesFor(""))];
  const at = Math.min(chosen, Math.max(0, hits.length - 1));
  const go = (hit: Hit | undefined): void => {
    if (!hit) return;
    close();
    navigate(hit.to);
  };
  const onKey = (event: KeyboardEvent): void => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step !== undefined && hits.length) {
      event.preventDefault();
      const next = (at + step + hits.length) % hits.length;
      setChosen(next);
      list.current?.children[next]?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      go(hits[at]);
    }
  };
  return (
    <Dialog title="Find" onClose={close}>
      <input
        class="finder"
        type="text"
        role="combobox"
        aria-label="Find a run by number, id, commit or branch, a project or a page"
        aria-expanded="true"
        aria-controls="finder-list"
        aria-autocomplete="list"
        aria-activedescendant={hits[at] ? `finder-${at}` : undefined}
        placeholder="Run number, id, commit, branch, project, page"
        autoFocus
        autocomplete="off"
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setChosen(0);
        }}
        onKeyDown={onKey}
      />
      <ul ref={list} id="finder-list" class="hits" role="listbox" aria-label="Found">
        {hits.map((hit, index) => (
          <li key={hit.key} id={`finder-${index}`} role="option" aria-selected={index === at} onMouseMove={() => setChosen(index)} onClick={() => go(hit)}>
            {hit.run ? <StateBadge name={runState(hit.run)} quiet /> : hit.icon && <Icon name={hit.icon} />}
            <span class="cut"><Text value={hit.label} /></span>
            <span class="faint cut"><Text value={hit.detail} /></span>
          </li>
        ))}
      </ul>
      {hits.length === 0 && <p class="faint" role="status">Nothing found</p>}
    </Dialog>
  );
}
