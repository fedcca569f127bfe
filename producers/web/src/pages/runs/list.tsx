// /ui/: the runs, the latest first, as they change.
import { useRef } from "preact/hooks";
import { useGet } from "../../api/resource";
import { useStream } from "../../api/stream";
import type { RunsAnswer, RunSummaryShape } from "../../api/types";
import { href } from "../../app/router";
import { Icon } from "../../components/icon";
import { Empty, Loaded, PageHead } from "../../components/parts";
import { runState, StateBadge } from "../../components/state";
import { Code, Cut, ShortId } from "../../components/text";
import { Ago, Duration } from "../../components/time";
import { headline, origin, runRef } from "../../text/run";

const PAGE = 40;
/** Changes arrive in bursts; the list is read at most this often. */
const READ_MS = 500;

export function RunList() {
  const list = useGet<RunsAnswer>("/runs", { limit: PAGE });
  const timer = useRef(0);
  useStream("runs", {
    path: "/runs/events",
    onEvents: () => {
      if (timer.current) return;
      timer.current = window.setTimeout(() => {
        timer.current = 0;
        list.reload();
      }, READ_MS);
    },
  });
  return (
    <>
      <PageHead title="Runs" />
      <Loaded of={list}>{({ runs }) => (runs.length ? <Table runs={runs} /> : <NoRuns />)}</Loaded>
    </>
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

function Table({ runs }: { runs: readonly RunSummaryShape[] }) {
  return (
    <table class="runs">
      <thead>
        <tr><th>State</th><th>Run</th><th class="optional">Origin</th><th class="number">Waited</th><th class="number">Duration</th><th class="number">Created</th></tr>
      </thead>
      <tbody>{runs.map((run) => <Row key={run.id} run={run} />)}</tbody>
    </table>
  );
}

function Row({ run }: { run: RunSummaryShape }) {
  const from = origin(run);
  const { commit_sha: commit, message } = run.annotations;
  return (
    <tr>
      <td><StateBadge name={runState(run)} /></td>
      <td class="grow">
        <a class="row-link cut" href={href(`/runs/${run.id}`)}><Cut value={run.name} /></a>
        <span class="faint cut small"><Cut value={runRef(run)} /></span>
      </td>
      <td class="optional">
        {from && <span class="origin"><Icon name={from.kind} /><Cut value={from.name} /></span>}
        {commit && <span class="faint small"><ShortId value={commit} /> <Cut value={headline(message)} /></span>}
      </td>
      <td class="number"><Duration from={run.enqueue_time} to={run.start_time ?? run.end_time} /></td>
      <td class="number"><Duration from={run.start_time} to={run.end_time} /></td>
      <td class="number"><Ago at={run.enqueue_time} /></td>
    </tr>
  );
}
