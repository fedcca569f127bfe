// Runs as a table: on the list, and on the page of a group.
import type { RunsAnswer, RunSummaryShape } from "../../api/types";
import { useKey } from "../../app/keys";
import { href } from "../../app/router";
import { Icon } from "../../components/icon";
import { runState, StateBadge } from "../../components/state";
import { TaskStrip } from "../../components/strip";
import { Cut, ShortId } from "../../components/text";
import { Ago, Duration } from "../../components/time";
import { headline, origin } from "../../text/run";

/** Moves the focus to the next or previous run. */
function step(by: 1 | -1): void {
  const links = [...document.querySelectorAll<HTMLAnchorElement>("a.row-link")];
  const at = links.findIndex((one) => one.closest("tr")?.contains(document.activeElement));
  links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1)]?.focus();
}

type Tasks = RunsAnswer["tasks"];

export function RunTable({ runs, tasks, groups = true }: { runs: readonly RunSummaryShape[]; tasks: Tasks; groups?: boolean }) {
  useKey("j", "Next run", () => step(1));
  useKey("k", "Previous run", () => step(-1));
  return (
    <table class="runs">
      <thead>
        <tr>
          <th>State</th><th>Run</th><th class="wide">From</th><th class="wide">Tasks</th>
          <th class="number wide">Waited</th><th class="number">Duration</th><th class="number">Created</th>
        </tr>
      </thead>
      <tbody>{runs.map((run) => <Row key={run.id} run={run} counts={tasks?.[run.id] ?? {}} groups={groups} />)}</tbody>
    </table>
  );
}

function Row({ run, counts, groups }: { run: RunSummaryShape; counts: Record<string, number>; groups: boolean }) {
  return (
    <tr>
      <td class="state-cell"><StateBadge name={runState(run)} /></td>
      <td class="grow">
        <a class="row-link cut" href={href(`/runs/${run.id}`)}>
          <Cut value={run.name} />{run.counter > 0 && <span class="faint">#{run.counter}</span>}
        </a>
        <span class="under faint">
          {groups && <a href={href(`/groups/${encodeURIComponent(run.group)}`)} class="cut"><Cut value={run.group} /></a>}
          {run.reason && <Cut value={run.reason} />}
          {run.tasks_waiting_approval.length > 0 && <Cut value={`waits for approval: ${run.tasks_waiting_approval.join(", ")}`} />}
          {run.setup_errors.length > 0 && <Cut value={run.setup_errors[0] ?? ""} />}
        </span>
      </td>
      <td class="from wide"><From run={run} /></td>
      <td class="wide"><TaskStrip counts={counts} /></td>
      <td class="number wide"><Duration from={run.enqueue_time} to={run.start_time ?? run.end_time} /></td>
      <td class="number"><Duration from={run.start_time} to={run.end_time} /></td>
      <td class="number"><Ago at={run.enqueue_time} /></td>
    </tr>
  );
}

function From({ run }: { run: RunSummaryShape }) {
  const from = origin(run);
  const { commit_sha: commit, message } = run.annotations;
  return (
    <>
      {from && <span class="origin"><Icon name={from.kind} /><Cut value={from.name} /></span>}
      {(commit || message) && <span class="under faint">{commit && <ShortId value={commit} />}<Cut value={headline(message)} /></span>}
      {!from && !commit && !message && <span class="faint">–</span>}
    </>
  );
}
