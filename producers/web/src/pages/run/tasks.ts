// The tasks of a run in the order and with the times that the views show.
import type { RunAnswer, RunShape, RunTaskShape } from "../../api/types";

const byName = new Intl.Collator("en", { numeric: true }).compare;

const ordered = new WeakMap<RunShape, readonly RunTaskShape[]>();

/** The tasks level by level, by name within one. */
export function orderedTasks(run: RunShape): readonly RunTaskShape[] {
  const known = ordered.get(run);
  if (known) return known;
  const found = Object.values(run.tasks).sort((a, b) => a.level - b.level || byName(a.name, b.name));
  ordered.set(run, found);
  return found;
}

/** The task to show first: what went wrong, else what happens, else what waits for a person, else the last one. */
export function firstOfInterest(tasks: readonly RunTaskShape[]): RunTaskShape | undefined {
  return (
    tasks.find((one) => one.status === "failed") ??
    tasks.find((one) => one.status === "running") ??
    tasks.find((one) => one.waiting_approval) ??
    tasks.findLast((one) => one.start_time) ??
    tasks[0]
  );
}

/** The step to show first of a task: the one that failed, else the one that runs, else the last one that ran. */
export function stepOfInterest(task: RunTaskShape): number | "setup" {
  const { steps, setup_step: setup } = task;
  for (const phase of ["failed", "running"]) {
    const found = steps.findIndex((one) => one.phase === phase);
    if (found >= 0) return found;
    if (setup.phase === phase) return "setup";
  }
  const last = steps.findLastIndex((one) => one.start_time);
  return last >= 0 ? last : "setup";
}

/** When the task could have started: when the last of those it depends on ended, else when the run began. */
export function readyTime(run: RunShape, task: RunTaskShape): string | null {
  let found: string | null = run.start_time;
  for (const id of Object.keys(task.depends)) {
    const end = run.tasks[id]?.end_time;
    if (!end) return null;
    if (!found || Date.parse(end) > Date.parse(found)) found = end;
  }
  return found;
}

/** The ids of the tasks that the length of the run follows from: from the last one that ended, back to the first. */
export function criticalPath(run: RunShape): Set<string> {
  const path = new Set<string>();
  let task = latest(Object.values(run.tasks));
  while (task && !path.has(task.id)) {
    path.add(task.id);
    task = latest(Object.keys(task.depends).flatMap((id) => run.tasks[id] ?? []));
  }
  return path.size > 1 ? path : new Set();
}

function latest(tasks: readonly RunTaskShape[]): RunTaskShape | undefined {
  let found: RunTaskShape | undefined;
  for (const task of tasks) {
    if (task.end_time && (!found?.end_time || Date.parse(task.end_time) > Date.parse(found.end_time))) found = task;
  }
  return found;
}

/** How many tasks are in each state, in the order of states. */
export function countsByStatus(run: RunShape): [string, number][] {
  const found = new Map<string, number>();
  for (const task of Object.values(run.tasks)) found.set(task.status, (found.get(task.status) ?? 0) + 1);
  const order = ["failed", "running", "success", "skipped", "stopped", "cancelled", "notstarted"];
  return [...found].sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
}

export type Edge = { from: string; to: string; conditions: readonly string[] };

export function edges({ run }: Pick<RunAnswer, "run">): Edge[] {
  return Object.values(run.tasks).flatMap((task) =>
    Object.entries(task.depends).map(([from, depend]) => ({ from, to: task.id, conditions: depend.conditions ?? ["on_success"] })),
  );
}
