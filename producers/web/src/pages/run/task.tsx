// One task of a run: its state, why it waits, its attempts, its steps, and the log of one of them.
import type { ReasonShape, RunAnswer, RunTaskShape, StepShape } from "../../api/types";
import { href } from "../../app/router";
import { Icon } from "../../components/icon";
import { Note } from "../../components/parts";
import { StateBadge, taskState, type StateName } from "../../components/state";
import { Mono, ShortId, Text } from "../../components/text";
import { Clock, Duration } from "../../components/time";
import { visible } from "../../text/safe";
import { counted } from "../../text/time";
import { StepLog } from "../log/step-log";
import { approve } from "./actions";
import { readyTime } from "./tasks";
import type { StepRef } from "./selection";
import { WhyTask } from "./why";

type Props = {
  answer: RunAnswer;
  task: RunTaskShape;
  step: StepRef;
  attempt: number;
  reasons: readonly ReasonShape[];
  /** The moment that is shown, as time; null: now. */
  at: string | null;
  hrefOf: (step: StepRef, attempt?: number) => string;
};

export function TaskPanel({ answer: { run }, task, step, attempt, reasons, at, hrefOf }: Props) {
  const live = at === null;
  const shown = task.attempts.find((one) => one.attempt === attempt) ?? task;
  const ended = shown.end_time !== null;
  const chosen = step === "setup" ? shown.setup_step : shown.steps[step];
  return (
    <section class="task-panel" aria-label={`Task ${visible(task.name)}`}>
      <header>
        <StateBadge name={taskState(task)} />
        <h2><Text value={task.name} /></h2>
        {task.waiting_approval && live && <button type="button" class="primary small" onClick={() => void approve(run, task)}><Icon name="check" />Approve</button>}
      </header>
      <dl class="facts">
        {task.start_time && <div><dt>Started</dt><dd><Clock at={shown.start_time} /></dd></div>}
        {!task.kept && !task.skip && <div><dt>Waited</dt><dd><Duration from={readyTime(run, task)} to={task.start_time ?? task.end_time ?? run.end_time ?? at} /></dd></div>}
        {shown.start_time && <div><dt>Took</dt><dd><Duration from={shown.start_time} to={shown.end_time ?? at} /></dd></div>}
        {task.image && <div><dt>Image</dt><dd><Mono value={task.image} /></dd></div>}
        {shown.executor_id && <div><dt>Executor</dt><dd><ShortId value={shown.executor_id} /></dd></div>}
        {task.annotations.approvers && <div><dt>Approved by</dt><dd><Text value={approvers(task.annotations.approvers)} /></dd></div>}
      </dl>
      {task.kept && <Note icon="check">Kept from the <a href={href(`/runs/${run.restart?.run_id ?? run.id}`)}>run that this one restarts</a>: it succeeded there.</Note>}
      {shown.fail_error && <Note icon="warning" tone="failed"><Text value={shown.fail_error} /></Note>}
      {live && <WhyTask reasons={reasons} task={task.name} />}
      {task.attempts.length > 0 && <Attempts task={task} shown={attempt} hrefOf={(one) => hrefOf(step, one)} />}
      <ol class="steps">
        <StepRow label="Setup" step={shown.setup_step} selected={step === "setup"} href={hrefOf("setup", attempt)} at={at} />
        {shown.steps.map((one, index) => (
          <StepRow key={index} label={one.name} step={one} selected={step === index} href={hrefOf(index, attempt)} at={at} />
        ))}
      </ol>
      {chosen && chosen.start_time ? (
        <StepLog key={`${task.id} ${step} ${attempt}`} run={run.id} task={task} step={step} attempt={attempt} state={chosen} at={at} />
      ) : (
        <p class="faint no-log">{ended || run.end_time ? "This step never started, so it has no log." : "This step has not started yet."}</p>
      )}
    </section>
  );
}

function approvers(text: string): string {
  try {
    return (JSON.parse(text) as string[]).map((one) => one.replace(/^user:/, "")).join(", ");
  } catch {
    return text;
  }
}

function Attempts({ task, shown, hrefOf }: { task: RunTaskShape; shown: number; hrefOf: (attempt: number) => string }) {
  const all = [...task.attempts.map((one) => one.attempt), task.attempt];
  return (
    <nav class="attempts" aria-label={`Attempts of ${visible(task.name)}`}>
      <span class="faint">{counted(all.length, "attempt")} of at most {task.max_attempts}:</span>
      {all.map((one) => <a key={one} href={hrefOf(one)} aria-current={one === shown ? "true" : undefined}>#{one}</a>)}
    </nav>
  );
}

function stepState(step: StepShape): StateName {
  if (step.timedout) return "timedout";
  switch (step.phase) {
    case "success":
    case "failed":
    case "running":
    case "stopped":
    case "cancelled":
      return step.phase;
    default:
      return "notstarted";
  }
}

function StepRow({ label, step, selected, href: to, at }: { label: string; step: StepShape; selected: boolean; href: string; at: string | null }) {
  return (
    <li>
      <a class="step-row" href={to} aria-current={selected ? "true" : undefined}>
        <StateBadge name={stepState(step)} quiet />
        <span class="cut" title={visible(label)}><Text value={label} /></span>
        {step.exit_status !== null && step.exit_status !== 0 && <span class="exit">exit {step.exit_status}</span>}
        {step.warnings.length > 0 && <span class="exit warning" title={visible(step.warnings.join("\n"))}>{counted(step.warnings.length, "warning")}</span>}
        <Duration from={step.start_time} to={step.end_time ?? (step.start_time ? at : null)} live={step.start_time !== null} />
      </a>
      {selected && step.warnings.map((one) => <p key={one} class="small step-warning"><Icon name="warning" /><Text value={one} /></p>)}
    </li>
  );
}
