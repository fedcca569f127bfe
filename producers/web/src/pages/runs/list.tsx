// /ui/: the runs, the latest first, as they change.
import { useGet } from "../../api/resource";
import type { RunsAnswer } from "../../api/types";
import { address, href, navigate } from "../../app/router";
import { Icon } from "../../components/icon";
import { Empty, Loaded, PageHead } from "../../components/parts";
import { Code } from "../../components/text";
import { Filters, filtersOf, isFiltered } from "./filters";
import { useRunChanges } from "./live";
import { RunTable } from "./table";

const PAGE = 40;

export function RunList() {
  const { query } = address.value;
  const list = useGet<RunsAnswer>("/runs", { ...filtersOf(query), counts: true, tasks: true, limit: PAGE });
  useRunChanges(list.reload);
  return (
    <>
      <PageHead title="Runs" />
      <Filters counts={list.data.value?.counts} />
      <Loaded of={list} lines={12}>
        {({ runs, tasks, next_start: next }) => (
          <>
            {runs.length > 0 && <RunTable runs={runs} tasks={tasks} />}
            {runs.length === 0 && (next !== null ? <NoneYet /> : query.has("start") ? <NoMore /> : isFiltered(query) ? <NoMatch /> : <NoRuns />)}
            <Pages next={next} few={runs.length < PAGE} />
          </>
        )}
      </Loaded>
    </>
  );
}

/** Links to the newest page and to the next one; each page has an address that stays. */
function Pages({ next, few }: { next: number | null; few: boolean }) {
  const { path, query } = address.value;
  const at = (start: number | null): string => {
    const found = new URLSearchParams(query);
    found.delete("start");
    if (start !== null) found.set("start", String(start));
    const text = found.toString();
    return `${href(path)}${text && `?${text}`}`;
  };
  if (next === null && !query.has("start")) return null;
  return (
    <nav class="pages" aria-label="Pages">
      {query.has("start") && <a class="button" href={at(null)}><Icon name="left" />Newest</a>}
      {next !== null && <a class="button" href={at(next)}>{few ? "Search further back" : "Older"}<Icon name="right" /></a>}
    </nav>
  );
}

function NoRuns() {
  return (
    <Empty icon="play" title="There are no runs yet">
      <p>This command creates one from the configuration in your repository:</p>
      <Code value="runstream run create --follow" />
    </Empty>
  );
}

function NoMatch() {
  return (
    <Empty icon="filter" title="No run matches">
      <button type="button" onClick={() => navigate(href("/"), { replace: true })}>Remove the filters</button>
    </Empty>
  );
}

/** The service reads a bounded number of runs for each page. */
function NoneYet() {
  return <Empty icon="filter" title="No run matches among the ones searched so far" />;
}

function NoMore() {
  return <Empty title="There are no older runs" />;
}
