// /ui/runs/ID: one run, live or at any moment: its tasks at the left, one task with its log at the right, the time bar.
import { useMemo, useState } from "preact/hooks";
import type { RunAnswer, RunTaskShape } from "../../api/types";
import { useKey } from "../../app/keys";
import { remembered } from "../../app/preferences";
import { address, href, navigate, query } from "../../app/router";
import { Icon } from "../../components/icon";
import { Choice, Empty, Failure, Note, Skeleton, useTitle } from "../../components/parts";
import { MANY } from "../../components/rows";
import { runState, StateBadge, stateOf, taskState } from "../../components/state";
import { Actor, CopyButton, ShortId, Text } from "../../components/text";
import { Ago, Duration } from "../../components/time";
import { headline, origin, runRef } from "../../text/run";
import { TimeBar } from "../time/bar";
import { Actions } from "./actions";
import { Graph } from "./graph";
import { selectionOf, type Selection, type StepRef } from "./selection";
import { TaskTable } from "./table";
import { TaskPanel } from "./task";
import { countsByStatus, orderedTasks } from "./tasks";
import { Timeline } from "./timeline";
import { useRun, type Watch } from "./watch";
import { useWhy, WhyRun } from "./why";

const VIEWS = [
  { value: "graph", label: "Graph" },
  { value: "timeline", label: "Timeline" },
  { value: "table", label: "Table" },
] as const;
type View = (typeof VIEWS)[number]["value"];

/** The view that this browser showed last; an address may name another one. */
const lastView = remembered<View>("run-view", ["graph", "timeline", "table"], "graph");

export function RunPage({ id }: { id: string }) {
  const watch = useRun(id);
  const answer = watch.answer.value;
  const error = watch.error.value;
  const latest = watch.latest.value;
  useTitle(latest ? `${stateOf(runState(latest.run)).word}: ${latest.run.name}` : "Run");
  if (error && (!answer || (error.status >= 400 && error.status < 500))) return <Failure error={error} retry={watch.reload} />;
  if (!answer || !latest) return <Skeleton lines={10} />;
  return <Shown watch={watch} answer={answer} latest={latest} />;
}

function Shown({ watch, answer, latest }: { watch: Watch; answer: RunAnswer; latest: RunAnswer }) {
  const moment = watch.moment.value;
  const reasons = useWhy(watch);
  const found = query.value;
  const selection = selectionOf(answer, found);
  const named = found.get("view");
  const view = VIEWS.find((one) => one.value === named)?.value ?? lastView.value;
  const hrefOf = (task: RunTaskShape): string => link({ task: task.name, step: null, attempt: null });
  const tasks = orderedTasks(answer.run);
  const [wanted, setWanted] = useState("");
  // The browser's own find does not see the rows that are not in the document.
  const finds = tasks.length > MANY && view !== "graph";
  const shown = useMemo(() => (finds ? tasks.filter((one) => one.name.toLowerCase().includes(wanted.trim().toLowerCase())) : tasks), [tasks, finds, wanted]);
  useTaskKeys(answer, selection);
  return (
    <div class={moment ? "run-page past" : "run-page"}>
      <Head answer={answer} latest={latest} by={watch.creator.value} at={moment?.time ?? null} />
      {watch.wrongMoment.value && <Note icon="clock" tone="warning">{watch.wrongMoment.value}. <a href={link({ at: null })}>Show the run as it is now</a></Note>}
      {answer.run.setup_errors.map((one) => <Note key={one} icon="warning" tone="failed"><Text value={one} /></Note>)}
      {!moment && <WhyRun reasons={reasons} />}
      {tasks.length > 0 && (
        <div class="split">
          <section class="run-tasks" aria-label="Tasks">
            <div class="run-tools">
              <Choice label="View" options={VIEWS} value={view} onChange={showView} />
              <Counts answer={answer} />
              {finds && <input type="search" class="find-task" value={wanted} placeholder="Find a task by name" aria-label="Find a task by name" spellcheck={false} onInput={(event) => setWanted(event.currentTarget.value)} />}
            </div>
            {view === "graph" && <Graph answer={answer} selected={selection?.task.name ?? ""} hrefOf={hrefOf} at={moment?.time ?? null} />}
            {view === "timeline" && <Timeline answer={answer} shown={shown} selected={selection?.task.name ?? ""} hrefOf={hrefOf} until={moment ? Date.parse(moment.time) : null} />}
            {finds && shown.length === 0 && <Empty title="No task has this in its name" />}
            {view === "table" && <TaskTable answer={answer} tasks={shown} selected={selection?.task.name ?? ""} hrefOf={hrefOf} at={moment?.time ?? null} />}
          </section>
          {selection && (
            <TaskPanel
              answer={answer}
              {...selection}
              reasons={reasons}
              at={moment?.time ?? null}
              hrefOf={(step, attempt) => link({ task: selection.task.name, step: String(step), attempt: attempt === undefined || attempt === selection.task.attempt ? null : String(attempt) })}
            />
          )}
        </div>
      )}
      <TimeBar watch={watch} />
    </div>
  );
}

function showView(view: View): void {
  lastView.value = view;
  navigate(link({ view }), { replace: true });
}

/** This page's address with other parameters; null removes one. */
function link(changes: Record<string, string | null>): string {
  const found = new URLSearchParams(query.value);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) found.delete(name);
    else found.set(name, value);
  }
  return href(address.value.path, Object.fromEntries(found));
}

function useTaskKeys(answer: RunAnswer, selection: Selection): void {
  const tasks = useMemo(() => orderedTasks(answer.run), [answer.run]);
  const select = (task: RunTaskShape | undefined): void => {
    if (task) navigate(link({ task: task.name, step: null, attempt: null }), { replace: true });
  };
  const toTask = (by: number): void => {
    const index = tasks.findIndex((one) => one.id === selection?.task.id) + by;
    select(tasks[(index + tasks.length) % tasks.length]);
  };
  const toStep = (by: number): void => {
    if (!selection) return;
    const number = (selection.step === "setup" ? -1 : selection.step) + by;
    const step: StepRef = number < 0 ? "setup" : Math.min(number, selection.task.steps.length - 1);
    navigate(link({ task: selection.task.name, step: String(step) }), { replace: true });
  };
  useKey("j", "Next task", () => toTask(1));
  useKey("k", "Previous task", () => toTask(-1));
  useKey("n", "Next step", () => toStep(1));
  useKey("p", "Previous step", () => toStep(-1));
  useKey("f", "Next failed task", () => {
    const failed = tasks.filter((one) => one.status === "failed");
    const index = failed.findIndex((one) => one.id === selection?.task.id);
    select(failed[(index + 1) % failed.length]);
  });
  for (const [index, one] of VIEWS.entries()) {
    useKey(String(index + 1), `Show the ${one.label.toLowerCase()}`, () => showView(one.value));
  }
}

function Head({ answer: { run }, latest, by, at }: { answer: RunAnswer; latest: RunAnswer; by: string; at: string | null }) {
  const from = origin(run);
  const { commit_sha: commit, message, commit_link: commitLink } = run.annotations;
  return (
    <header class="run-head">
      <div class="run-title">
        <StateBadge name={runState(run)} />
        <h1><Text value={run.name} /></h1>
        <a class="faint" href={href(`/groups/${encodeURIComponent(run.group)}`)} title="The queue and the runs of this group"><Text value={runRef(run)} /></a>
        <CopyButton value={run.id} label="Copy the run's id" />
      </div>
      <div class="actions"><Actions run={latest.run} disabled={at !== null} /></div>
      <dl class="facts">
        {from && <div><dt>{{ branch: "Branch", tag: "Tag", pullrequest: "Pull request" }[from.kind]}</dt><dd class="origin"><Icon name={from.kind} /><Text value={from.name} /></dd></div>}
        {commit && <div><dt>Commit</dt><dd>{commitLink && /^https?:/.test(commitLink) ? <a href={commitLink} rel="noreferrer noopener"><ShortId value={commit} /></a> : <ShortId value={commit} />} <Text value={headline(message)} /></dd></div>}
        <div><dt>Created</dt><dd><Ago at={run.enqueue_time} />{by && <> by <Actor value={by} /></>}</dd></div>
        <div><dt>Waited</dt><dd><Duration from={run.enqueue_time} to={run.start_time ?? run.end_time ?? at} /></dd></div>
        {run.start_time && <div><dt>Took</dt><dd><Duration from={run.start_time} to={run.end_time ?? at} /></dd></div>}
        {run.priority !== 0 && <div><dt>Priority</dt><dd>{run.priority}</dd></div>}
        {run.restart && <div><dt>Restarts</dt><dd><a href={href(`/runs/${run.restart.run_id}`)}><ShortId value={run.restart.run_id} /></a> <span class="faint">{{ all: "all tasks", failed: "what did not succeed", chosen: "chosen tasks" }[run.restart.scope]}</span></dd></div>}
        {run.reason && <div><dt>Reason</dt><dd><Text value={run.reason} /></dd></div>}
      </dl>
    </header>
  );
}

function Counts({ answer: { run } }: { answer: RunAnswer }) {
  return (
    <ul class="counts" aria-label="Tasks by state">
      {countsByStatus(run).map(([status, number]) => {
        const state = stateOf(taskState({ status }));
        return <li key={status} class={`state ${state.tone}`} title={`${number} ${state.word.toLowerCase()}`}><Icon name={state.icon} />{number}<span class="unseen">{state.word}</span></li>;
      })}
    </ul>
  );
}
