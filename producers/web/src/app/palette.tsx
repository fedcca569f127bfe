// The palette: one field that leads to a run, a project or a page.
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, segment } from "../api/client";
import { session } from "../api/session";
import type { MembershipView, OrganizationView, ProjectGroupView, ProjectView, RunsAnswer, RunSummaryShape } from "../api/types";
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
/** At most so many groups are asked for their projects. */
const MAX_GROUPS = 60;
const MAX_PROJECTS = 6;

function pagesFor(text: string): Hit[] {
  return PLACES.filter(({ label }) => label.toLowerCase().includes(text.toLowerCase())).map(({ label, path }) => ({ key: path, to: href(path), label, detail: "page", icon: "right" }));
}

async function runsFor(text: string, abort: AbortSignal): Promise<Hit[]> {
  if (UUID.test(text)) return [{ key: text, to: href(`/runs/${text}`), label: text, detail: "run", icon: "right" }];
  // As a list shows it, GROUP #NUMBER, or as commands take it, GROUP/NUMBER.
  const [, group, number] = /^(\/.+?)(?:\/|\s*#|\s+)(\d{1,18})$/.exec(text) ?? [];
  const { runs } = await get<RunsAnswer>("/runs", { ...(group ? { group, text: `#${number}` } : { text }), limit: 12 }, abort);
  return runs.map((run): Hit => ({ key: run.id, to: href(`/runs/${run.id}`), label: run.name, detail: runRef(run), run }));
}

/** The paths of the groups and projects of the user: read once, by the first text, while the palette is open. */
let tree: Promise<string[]> | null = null;

async function readTree(): Promise<string[]> {
  const { user, admin } = session.peek() ?? {};
  const organizations = admin ? await get<OrganizationView[]>("/orgs", { limit: 100 }) : (await get<MembershipView[]>("/user/orgs")).map((one) => one.Organization);
  const groups = [...(user ? [`user/${user.username}`] : []), ...organizations.map((one) => `org/${one.name}`)];
  const projects: string[] = [];
  for (let from = 0; from < groups.length && from < MAX_GROUPS; ) {
    const level = groups.slice(from, MAX_GROUPS);
    from += level.length;
    const found = await Promise.all(level.map((group) => Promise.all([
      get<ProjectGroupView[]>(`/projectgroups/${segment(group)}/subgroups`),
      get<ProjectView[]>(`/projectgroups/${segment(group)}/projects`),
    ])));
    for (const [below, inside] of found) {
      groups.push(...below.map((one) => one.path));
      projects.push(...inside.map((one) => one.path ?? ""));
    }
  }
  return [...projects.map((path) => `/p/${path}`), ...groups.map((path) => `/g/${path}`)];
}

/** The projects, then the groups, with this text in their path. */
async function projectsFor(text: string): Promise<Hit[]> {
  if (!text || text.startsWith("#")) return [];
  const paths = await (tree ??= readTree());
  const wanted = text.toLowerCase();
  return paths.filter((path) => path.slice(3).toLowerCase().includes(wanted)).slice(0, MAX_PROJECTS)
    .map((path) => ({ key: path, to: href(path.split("/").map(encodeURIComponent).join("/")), label: path.slice(3), detail: path.startsWith("/p") ? "project" : "group", icon: "branch" }));
}

/** What a text finds: pages of that name, projects, runs. What the user may not read is left out. */
async function hitsFor(text: string, abort: AbortSignal): Promise<Hit[]> {
  const none = (error: unknown): Hit[] => {
    if (!abort.aborted && !(error instanceof ApiError)) throw error;
    return [];
  };
  const [projects, runs] = await Promise.all([projectsFor(text).catch(none), runsFor(text, abort).catch(none)]);
  return text ? [...pagesFor(text), ...projects, ...runs] : [...runs, ...pagesFor("")];
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
    tree = null;
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
