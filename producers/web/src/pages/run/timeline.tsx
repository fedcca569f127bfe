// The timeline of a run: for each task a bar with its wait, its setup and its steps, on one axis.
import { useState } from "preact/hooks";
import type { AttemptShape, RunAnswer, RunShape, RunTaskShape, StepShape } from "../../api/types";
import { now } from "../../app/now";
import { Icon } from "../../components/icon";
import { MANY, useRows } from "../../components/rows";
import { StateBadge, stateOf, taskState, type Tone } from "../../components/state";
import { Text } from "../../components/text";
import { Duration } from "../../components/time";
import { visible } from "../../text/safe";
import { duration } from "../../text/time";
import { criticalPath, orderedTasks, readyTime } from "./tasks";
import { timeScale, type Interval, type TimeScale } from "./time-scale";

type Props = { answer: RunAnswer; shown: readonly RunTaskShape[]; selected: string; hrefOf: (task: RunTaskShape) => string; until: number | null };
const ZOOMS = [1, 2, 4, 8, 16] as const;
/** Width of a drawing; it is stretched to that of its row. */
const UNITS = 10_000;

export function Timeline({ answer: { run }, shown, selected, hrefOf, until }: Props) {
  const [zoom, setZoom] = useState(0);
  const [folding, setFolding] = useState(true);
  const tasks = orderedTasks(run);
  // Every bar moves with the present: those of many tasks more rarely.
  const pace = tasks.length > MANY ? 5000 : 1000;
  const end = run.end_time ? Date.parse(run.end_time) : (until ?? Math.floor(now.value / pace) * pace);
  const { places, room, view } = useRows(shown.length, shown.findIndex((one) => one.name === selected));
  const busy = tasks.flatMap((task) => spans(task, end));
  const factor = ZOOMS[zoom] ?? 1;
  const last = busy.reduce((found, one) => Math.max(found, one.to), end);
  const scale = timeScale(Date.parse(run.enqueue_time), last, busy, folding, 5 * factor);
  const critical = criticalPath(run);
  return (
    <div class="timeline">
      <div class="timeline-tools">
        <label><input type="checkbox" checked={folding} onChange={(event) => setFolding(event.currentTarget.checked)} /> Fold idle time</label>
        <span class="legend" aria-hidden="true"><i class="wait" />wait<i class="setup" />setup<i class="steps" />steps</span>
        <span class="push" />
        <button type="button" class="small" disabled={zoom === 0} aria-label="Zoom out" title="Zoom out" onClick={() => setZoom(zoom - 1)}><Icon name="dash" /></button>
        <button type="button" class="small" disabled={zoom === ZOOMS.length - 1} aria-label="Zoom in" title="Zoom in" onClick={() => setZoom(zoom + 1)}><Icon name="plus" /></button>
      </div>
      <div class="timeline-scroll" {...view} tabIndex={0} role="group" aria-label="Timeline of the tasks">
        <div class="timeline-rows" data-zoom={factor}>
          <Axis scale={scale} />
          <div role="list">
            {places.map((place) => {
              if ("gap" in place) return <div key={`gap ${place.from}`} aria-hidden="true" style={{ height: room(place.gap) }} />;
              const task = shown[place.row] as RunTaskShape;
              return (
                <div key={task.id} role="listitem" data-row={place.row} aria-setsize={shown.length} aria-posinset={place.row + 1}>
                  <a class={`timeline-row ${critical.has(task.id) ? "critical" : ""}`} href={hrefOf(task)} aria-current={task.name === selected ? "true" : undefined}>
                    <span class="timeline-name">
                      <StateBadge name={taskState(task)} quiet />
                      <span class="cut" title={visible(task.name)}><Text value={task.name} /></span>
                      <small class="faint"><Duration from={task.start_time} to={task.end_time ?? (until === null ? null : new Date(until).toISOString())} /></small>
                    </span>
                    <Bar run={run} task={task} scale={scale} end={end} />
                  </a>
                </div>
              );
            })}
          </div>
        </div>
      </div>
      {critical.size > 0 && <p class="faint small">Bold names are the critical path: the run is as long as these tasks.</p>}
    </div>
  );
}

function Axis({ scale }: { scale: TimeScale }) {
  return (
    <div class="timeline-axis" aria-hidden="true">
      <span class="timeline-name" />
      <div>
        {scale.ticks.map((time) => <span key={time} class={scale.place(time) > 0.92 ? "last" : ""} style={{ left: `${100 * scale.place(time)}%` }}>{duration(time - scale.from)}</span>)}
        {scale.folds.map((one) => <i key={one.from} title={`${duration(one.to - one.from)} in which no task ran`} style={{ left: `${100 * one.at}%`, width: `${100 * one.width}%` }} />)}
      </div>
    </div>
  );
}

function Bar({ run, task, scale, end }: { run: RunShape; task: RunTaskShape; scale: TimeScale; end: number }) {
  const ready = readyTime(run, task);
  const state = stateOf(taskState(task));
  const waits = !task.skip && !task.kept && task.status !== "skipped" && ready !== null && (task.start_time !== null || !run.end_time);
  const first = task.attempts[0]?.start_time ?? task.start_time;
  return (
    <svg class="bar" viewBox={`0 0 ${UNITS} 16`} preserveAspectRatio="none" aria-hidden="true">
      {waits && ready && <Piece scale={scale} from={ready} to={first} end={end} class="wait" title="waited" />}
      {task.attempts.map((attempt) => <Attempt key={attempt.attempt} attempt={attempt} scale={scale} end={end} />)}
      {task.start_time && <Piece scale={scale} from={task.start_time} to={task.end_time} end={end} class={`task ${state.tone}`} title={state.word.toLowerCase()} />}
      {!task.kept && <Pieces steps={[task.setup_step, ...task.steps]} scale={scale} end={end} />}
    </svg>
  );
}

function Attempt({ attempt, scale, end }: { attempt: AttemptShape; scale: TimeScale; end: number }) {
  if (!attempt.start_time) return null;
  return <Piece scale={scale} from={attempt.start_time} to={attempt.end_time} end={end} class="attempt failed" title={`attempt ${attempt.attempt}: ${attempt.failure}`} />;
}

const TONES: Record<string, Tone> = { success: "success", failed: "failed", running: "running", stopped: "neutral" };

function Pieces({ steps, scale, end }: { steps: readonly StepShape[]; scale: TimeScale; end: number }) {
  return (
    <>
      {steps.map((step, index) =>
        step.start_time ? <Piece key={index} scale={scale} from={step.start_time} to={step.end_time} end={end} class={index === 0 && step.phase !== "failed" ? "setup" : `step ${TONES[step.phase] ?? "neutral"}`} title={step.name} /> : null,
      )}
    </>
  );
}

function Piece({ scale, from, to, end, class: name, title }: { scale: TimeScale; from: string; to: string | null; end: number; class: string; title: string }) {
  const [start, stop] = [Date.parse(from), to ? Date.parse(to) : Math.max(end, Date.parse(from))];
  const left = x(scale, start);
  return (
    <rect class={name} x={left} width={Math.max(x(scale, stop) - left, UNITS / 600)} y={name === "wait" ? 7 : name.startsWith("task") ? 1 : 3} height={name === "wait" ? 2 : name.startsWith("task") ? 14 : 10}>
      <title>{`${visible(title)}, ${duration(stop - start)}`}</title>
    </rect>
  );
}

function x(scale: TimeScale, time: number): number {
  return Math.round(UNITS * scale.place(time));
}

function spans(task: RunTaskShape, end: number): Interval[] {
  if (task.kept) return [];
  return [...task.attempts, task].flatMap(({ start_time: from, end_time: to }) => (from ? [{ from: Date.parse(from), to: to ? Date.parse(to) : Math.max(end, Date.parse(from)) }] : []));
}
