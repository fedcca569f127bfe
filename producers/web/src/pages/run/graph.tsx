// The graph of a run: tasks level by level, laid out once, coloured as they change.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { RunAnswer, RunTaskShape } from "../../api/types";
import { now } from "../../app/now";
import { Icon } from "../../components/icon";
import { stateOf, taskState } from "../../components/state";
import { Text } from "../../components/text";
import { visible } from "../../text/safe";
import { counted, duration } from "../../text/time";
import { layOut, type Box, type Layout } from "./layout";
import { edges, orderedTasks } from "./tasks";

/** Above this, a person asks for the drawing: it takes seconds, and a table says more. */
const DRAWN = 300;
const MIN_SCALE = 0.55;
/** Where a graph that is wider than this would be cut, its tasks are listed level by level. */
const NARROW = 480;

type Props = {
  answer: RunAnswer;
  selected: string;
  hrefOf: (task: RunTaskShape) => string;
  /** The moment that is shown; null: now. */
  at: string | null;
};

export function Graph(props: Props) {
  const tasks = Object.keys(props.answer.run.tasks).length;
  const [asked, setAsked] = useState(false);
  if (asked || tasks <= DRAWN) return <Drawing {...props} />;
  return (
    <div class="empty">
      <p><strong>{counted(tasks, "task")}</strong></p>
      <p class="faint">A graph of this size is hard to read; the table and the timeline show the same tasks.</p>
      <button type="button" onClick={() => setAsked(true)}>Draw it anyway</button>
    </div>
  );
}

function Drawing({ answer, selected, hrefOf, at }: Props) {
  const tasks = orderedTasks(answer.run);
  // It follows from the run's configuration alone: no moment moves a task.
  const layout = useMemo(() => layOut(tasks.map((one) => one.id), edges(answer)), [answer.run.id]);
  const [frame, width] = useWidth();
  const scale = Math.max(MIN_SCALE, Math.min(1, width / layout.width));
  const node = (task: RunTaskShape, place?: Box) => <Node key={task.id} task={task} place={place} selected={task.name === selected} href={hrefOf(task)} at={at} />;
  if (width < NARROW && layout.width * scale > width + 1) {
    const levels = Map.groupBy(tasks, (one) => one.level);
    return (
      <div class="graph levels" ref={frame} role="group" aria-label="Tasks level by level">
        {[...levels].map(([level, found]) => <div key={level}>{found.map((task) => node(task))}</div>)}
      </div>
    );
  }
  return (
    <div class="graph" ref={frame} tabIndex={layout.width * scale > width + 1 ? 0 : -1} role="group" aria-label="Graph of the tasks">
      <div style={{ width: `${layout.width * scale}px`, height: `${layout.height * scale}px` }}>
        <div class="drawing" style={{ width: `${layout.width}px`, height: `${layout.height}px`, scale: String(scale) }} onKeyDown={(event) => move(event, layout)}>
          <Edges layout={layout} answer={answer} />
          {tasks.map((task) => node(task, layout.nodes.get(task.id)))}
        </div>
      </div>
    </div>
  );
}

function useWidth() {
  const [width, setWidth] = useState(640);
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    const observer = new ResizeObserver(([entry]) => {
      if (entry) setWidth(entry.contentRect.width);
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [ref, width] as const;
}

function Node({ task, place, selected, href, at }: { task: RunTaskShape; place: Box | undefined; selected: boolean; href: string; at: string | null }) {
  const state = stateOf(taskState(task));
  const label = `${visible(task.name)}: ${state.word}`;
  return (
    <a
      class={`node ${state.tone}`}
      href={href}
      data-task={task.id}
      aria-current={selected ? "true" : undefined}
      aria-label={label}
      title={label}
      style={place && { left: `${place.x}px`, top: `${place.y}px`, width: `${place.width}px`, height: `${place.height}px` }}
    >
      <Icon name={state.icon} spin={state.icon === "running"} />
      <span class="cut"><Text value={task.name} /></span>
      <NodeTime task={task} at={at} />
    </a>
  );
}

function NodeTime({ task, at }: { task: RunTaskShape; at: string | null }) {
  if (!task.start_time) return task.skip || task.status === "skipped" ? null : task.attempt > 1 ? <small>#{task.attempt}</small> : null;
  const end = task.end_time ?? at;
  return <small>{task.kept ? "kept" : duration((end ? Date.parse(end) : Math.max(now.value, Date.parse(task.start_time))) - Date.parse(task.start_time))}</small>;
}

function Edges({ layout, answer }: { layout: Layout; answer: RunAnswer }) {
  const conditions = useMemo(() => new Map(edges(answer).map((one) => [`${one.from} ${one.to}`, one.conditions])), [answer.run.id]);
  return (
    <svg class="edges" width={layout.width} height={layout.height} aria-hidden="true">
      {layout.edges.map(({ from, to, path }) => {
        const only = conditions.get(`${from} ${to}`) ?? [];
        const done = answer.run.tasks[from]?.status === "success";
        const other = !only.includes("on_success") && !only.includes("always");
        return <path key={`${from} ${to}`} d={path} class={`${done ? "done" : ""} ${other ? "other" : ""}`}>{other && <title>{only.join(", ")}</title>}</path>;
      })}
    </svg>
  );
}

/** Arrow keys go to the nearest task in their direction. */
function move(event: KeyboardEvent, layout: Layout): void {
  const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  const current = (event.target as HTMLElement).closest<HTMLElement>("[data-task]")?.dataset.task;
  const from = current && layout.nodes.get(current);
  if (!direction || !from) return;
  event.preventDefault();
  const [dx = 0, dy = 0] = direction;
  let best: { id: string; distance: number } | null = null;
  for (const [id, node] of layout.nodes) {
    const x = node.x - from.x;
    const y = node.y - from.y;
    const along = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along <= 1) continue;
    const distance = along + 2 * aside;
    if (!best || distance < best.distance) best = { id, distance };
  }
  if (best) document.querySelector<HTMLElement>(`[data-task="${CSS.escape(best.id)}"]`)?.focus();
}
