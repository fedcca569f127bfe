// The palette: one field that leads to a run or a page.
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get } from "../api/client";
import type { RunsAnswer, RunSummaryShape } from "../api/types";
import { Icon, type IconName } from "../components/icon";
import { Dialog } from "../components/overlay";
import { runState, StateBadge } from "../components/state";
import { Text } from "../components/text";
import { runRef } from "../text/run";
import { PLACES } from "./places";
import { href, navigate } from "./router";

const open = signal(false);

export function openPalette(): void {
  open.value = true;
}

export type Hit = { key: string; to: string; label: string; detail: string; icon?: IconName; run?: RunSummaryShape };

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const DELAY = 150;

function pagesFor(text: string): Hit[] {
  return PLACES.filter(({ label }) => label.toLowerCase().includes(text.toLowerCase())).map(({ label, path }) => ({ key: path, to: href(path), label, detail: "page", icon: "right" }));
}

async function runsFor(text: string, abort: AbortSignal): Promise<Hit[]> {
  if (UUID.test(text)) return [{ key: text, to: href(`/runs/${text}`), label: text, detail: "run", icon: "right" }];
  const { runs } = await get<RunsAnswer>("/runs", { text, limit: 12 }, abort);
  return runs.map((run): Hit => ({ key: run.id, to: href(`/runs/${run.id}`), label: run.name, detail: runRef(run), run }));
}

/** What a text finds: runs, and pages of that name. What the user may not read is left out. */
async function hitsFor(text: string, abort: AbortSignal): Promise<Hit[]> {
  const runs = await runsFor(text, abort).catch((error: unknown) => {
    if (!abort.aborted && !(error instanceof ApiError)) throw error;
    return [];
  });
  return text ? [...pagesFor(text), ...runs] : [...runs, ...pagesFor("")];
}

export function Palette() {
  return open.value ? <Finder /> : null;
}

function Finder() {
  const [text, setText] = useState("");
  const [found, setFound] = useState<{ text: string; hits: Hit[] }>({ text: "", hits: pagesFor("") });
  const [chosen, setChosen] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const close = (): void => {
    open.value = false;
  };
  const wanted = text.trim();
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(() => {
      void hitsFor(wanted, abort.signal).then((hits) => !abort.signal.aborted && setFound({ text: wanted, hits }));
    }, wanted ? DELAY : 0);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [wanted]);
  const { hits } = found;
  const at = Math.min(chosen, Math.max(0, hits.length - 1));
  const go = (hit: Hit | undefined): void => {
    if (!hit) return;
    close();
    navigate(hit.to);
  };
  const enter = (): void => {
    // What is shown is of an earlier text while the answer is on its way.
    if (found.text === wanted) go(hits[at]);
    else void hitsFor(wanted, new AbortController().signal).then(([first]) => go(first));
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
      enter();
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
