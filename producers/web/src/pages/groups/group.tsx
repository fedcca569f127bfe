// /ui/groups/GROUP: who runs, who waits for whom, and how long the last runs took.
import { useGet } from "../../api/resource";
import type { RunsAnswer, RunSummaryShape, WhyAnswer } from "../../api/types";
import { href } from "../../app/router";
import { Empty, Loaded, PageHead, useTitle } from "../../components/parts";
import { runState, StateBadge } from "../../components/state";
import { CopyButton, Cut, Text } from "../../components/text";
import { Ago, Duration } from "../../components/time";
import { useRunChanges } from "../runs/live";
import { RunTable } from "../runs/table";
import { Durations } from "./durations";

const SHOWN = 30;
/** Waiting runs whose reasons are asked for: the first of the queue. */
const EXPLAINED = 5;

export function Group({ group }: { group: string }) {
  useTitle(group);
  const active = useGet<RunsAnswer>("/runs", { group: [group], phase: ["running", "queued"], asc: true, limit: 40 });
  const last = useGet<RunsAnswer>("/runs", { group: [group], phase: ["finished"], tasks: true, limit: SHOWN });
  useRunChanges(() => {
    active.reload();
    last.reload();
  });
  return (
    <>
      <PageHead title={<Text value={group} />} actions={<a class="button" href={href("/", { group: [group] })}>All its runs</a>}>
        <CopyButton value={group} label="Copy the group" />
      </PageHead>
      <div class="group-columns">
        <section aria-labelledby="queue">
          <h2 id="queue">Queue</h2>
          <Loaded of={active} lines={3}>{({ runs, next_start: next }) => <Queue runs={runs} more={next !== null} />}</Loaded>
        </section>
        <section aria-labelledby="durations">
          <h2 id="durations">Durations</h2>
          <Loaded of={last} lines={3}>{({ runs }) => (runs.length ? <Durations runs={runs} /> : <Empty title="No run has ended yet" />)}</Loaded>
        </section>
      </div>
      <section aria-labelledby="ended">
        <h2 id="ended">Last runs</h2>
        <Loaded of={last}>{({ runs, tasks }) => (runs.length ? <RunTable runs={runs} tasks={tasks} groups={runs.some((run) => run.group !== group)} /> : <Empty title="No run has ended yet" />)}</Loaded>
      </section>
    </>
  );
}

/** Running runs, then those that wait, in the order in which they will start. */
function Queue({ runs, more }: { runs: readonly RunSummaryShape[]; more: boolean }) {
  const running = runs.filter((run) => run.phase === "running");
  const waiting = runs.filter((run) => run.phase === "queued");
  if (!runs.length) return <Empty icon="check" title="Nothing runs or waits" />;
  return (
    <ol class="queue">
      {running.map((run) => <Entry key={run.id} run={run} />)}
      {waiting.map((run, index) => <Entry key={run.id} run={run} place={index + 1} />)}
      {more && <li class="faint">and more</li>}
    </ol>
  );
}

function Entry({ run, place = 0 }: { run: RunSummaryShape; place?: number }) {
  return (
    <li>
      <span class="place" title={place ? `Place ${place} of the queue` : "Running"}>{place || <span class="unseen">Running</span>}</span>
      <StateBadge name={runState(run)} />
      <a class="cut" href={href(`/runs/${run.id}`)}><Cut value={run.counter ? `${run.name} #${run.counter}` : run.name} /></a>
      <span class="push faint">{place ? <Ago at={run.enqueue_time} /> : <Duration from={run.start_time} />}</span>
      {place > 0 && place <= EXPLAINED && <Why run={run} />}
    </li>
  );
}

function Why({ run }: { run: RunSummaryShape }) {
  const why = useGet<WhyAnswer>(`/runs/${run.id}/why`);
  const reasons = why.data.value?.reasons ?? [];
  if (!reasons.length) return null;
  return <ul class="why">{reasons.map((reason) => <li key={reason.code + reason.message}><Text value={reason.message} /></li>)}</ul>;
}
