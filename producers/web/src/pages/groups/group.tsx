// /ui/groups/GROUP: who runs, who waits for whom, and how long the last runs took.
import { segment } from "../../api/client";
import { useGet } from "../../api/resource";
import type { GroupView, QueuedRun, RunsAnswer, RunSummaryShape, WhyAnswer } from "../../api/types";
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
  const state = useGet<GroupView>(`/groups/${segment(group)}`);
  const list = useGet<RunsAnswer>("/runs", { group: [group], tasks: true, limit: SHOWN });
  useRunChanges(() => {
    state.reload();
    list.reload();
  });
  return (
    <>
      <PageHead title={<Text value={group} />} actions={<a class="button" href={href("/", { group: [group] })}>All its runs</a>}>
        <CopyButton value={group} label="Copy the group" />
      </PageHead>
      <div class="group-columns">
        <section aria-labelledby="queue">
          <h2 id="queue">Queue</h2>
          <Loaded of={state} lines={3}>{({ queue, more }) => <Queue queue={queue} more={more} />}</Loaded>
        </section>
        <section aria-labelledby="durations">
          <h2 id="durations">Durations</h2>
          <Loaded of={state} lines={3}>{(found) => (found.last.length ? <Durations of={found} /> : <Empty title="No run has ended yet" />)}</Loaded>
        </section>
      </div>
      <section aria-labelledby="runs">
        <h2 id="runs">Latest runs</h2>
        <Loaded of={list}>{({ runs, tasks }) => (runs.length ? <RunTable runs={runs} tasks={tasks} groups={runs.some((run) => run.group !== group)} /> : <Empty title="The group has no runs" />)}</Loaded>
      </section>
    </>
  );
}

/** The unfinished runs, in the order in which they run. */
function Queue({ queue, more }: { queue: readonly QueuedRun[]; more: boolean }) {
  if (!queue.length) return <Empty icon="check" title="Nothing runs or waits" />;
  const waiting = queue.filter(({ run }) => run.phase === "queued");
  const byId = new Map(queue.map(({ run }) => [run.id, run]));
  return (
    <ol class="queue">
      {queue.map((entry) => <Entry key={entry.run.id} run={entry.run} place={waiting.indexOf(entry) + 1} before={byId.get(entry.waits_for)} />)}
      {more && <li class="faint">More runs wait behind these.</li>}
    </ol>
  );
}

function Entry({ run, place, before }: { run: RunSummaryShape; place: number; before: RunSummaryShape | undefined }) {
  return (
    <li>
      <span class="place" title={place ? `Place ${place} of the queue` : "Running"}>{place || <span class="unseen">Running</span>}</span>
      <StateBadge name={runState(run)} />
      <a class="cut" href={href(`/runs/${run.id}`)}><Cut value={named(run)} /></a>
      <span class="push faint">{place ? <Ago at={run.enqueue_time} /> : <Duration from={run.start_time} />}</span>
      {place > 0 && (place <= EXPLAINED ? <Why run={run} /> : before && <p class="why">waits for <Text value={named(before)} /></p>)}
    </li>
  );
}

function named(run: RunSummaryShape): string {
  return run.counter ? `${run.name} #${run.counter}` : run.name;
}

function Why({ run }: { run: RunSummaryShape }) {
  const why = useGet<WhyAnswer>(`/runs/${run.id}/why`);
  const reasons = why.data.value?.reasons ?? [];
  if (!reasons.length) return null;
  return <ul class="why">{reasons.map((reason) => <li key={reason.code + reason.message}><Text value={reason.message} /></li>)}</ul>;
}
