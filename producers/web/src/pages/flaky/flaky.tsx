// /ui/flaky: tasks that failed, and passed with the same commit and configuration.
import { useGet } from "../../api/resource";
import type { FlakyList, FlakyOccurrence, FlakyRun, FlakyTask } from "../../api/types";
import { address, href, setQuery } from "../../app/router";
import { Icon } from "../../components/icon";
import { Empty, Loaded, PageHead } from "../../components/parts";
import { Cut, ShortId, Text } from "../../components/text";
import { Ago } from "../../components/time";
import { counted } from "../../text/time";

export function Flaky() {
  const { query } = address.value;
  const text = (query.get("q") ?? "").toLowerCase();
  const list = useGet<FlakyList>("/flaky", { group: query.getAll("group") });
  const shown = (one: FlakyTask): boolean => !text || [one.task, one.name, one.group].some((place) => place.toLowerCase().includes(text));
  return (
    <>
      <PageHead title="Flaky tasks"><span class="faint">failed, then passed with the same commit and configuration</span></PageHead>
      <div class="filter-line flaky-filters">
        <span class="search">
          <Icon name="search" />
          <input type="search" aria-label="Filter the tasks" placeholder="Task, run, project" value={query.get("q") ?? ""} onInput={(event) => setQuery({ q: event.currentTarget.value })} />
        </span>
      </div>
      <Loaded of={list}>
        {({ tasks, failures, more }) => {
          const found = tasks.filter(shown);
          return (
            <>
              {found.length ? <Table tasks={found} /> : <Empty icon="check" title={tasks.length ? "No task matches" : "No flaky tasks"} />}
              <p class="faint small flaky-note">Found among the last {counted(failures, "failed task")}{more ? "; earlier failures are not looked at" : ""}.</p>
            </>
          );
        }}
      </Loaded>
    </>
  );
}

function Table({ tasks }: { tasks: readonly FlakyTask[] }) {
  return (
    <table class="flaky">
      <thead><tr><th class="number">Times</th><th>Task</th><th>Last seen</th></tr></thead>
      <tbody>
        {tasks.map((one) => (
          <tr key={`${one.group} ${one.name} ${one.task}`}>
            <td class="number"><strong>{one.count}</strong></td>
            <td><strong><Text value={one.task} /></strong><span class="under faint"><Cut value={`${one.name} of ${one.group}`} /></span></td>
            <td class="grow"><ul>{one.latest.map((seen) => <li key={seen.failed.id + seen.passed.id}><Seen seen={seen} task={one.task} /></li>)}</ul></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Seen({ seen, task }: { seen: FlakyOccurrence; task: string }) {
  const same = seen.failed.id === seen.passed.id;
  return (
    <>
      <Ago at={seen.end_time} />: {counted(seen.failures, "failure")} in <Run run={seen.failed} task={task} />, passed in {same ? "a later attempt" : <Run run={seen.passed} task={task} />}
      {seen.commit && <span class="faint"> at <ShortId value={seen.commit} /></span>}
    </>
  );
}

function Run({ run, task }: { run: FlakyRun; task: string }) {
  return <a href={href(`/runs/${run.id}`, { task })}><Text value={`#${run.counter}`} /></a>;
}
