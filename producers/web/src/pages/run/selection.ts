// What is selected on the page of a run: a task, one of its attempts and steps. It stands in the address.
import type { RunAnswer, RunTaskShape } from "../../api/types";
import { firstOfInterest, orderedTasks, stepOfInterest } from "./tasks";

export type StepRef = number | "setup";
export type Selection = { task: RunTaskShape; step: StepRef; attempt: number } | null;

/** The selection that the query names; what it does not name is what a reader most likely looks for. */
export function selectionOf({ run }: RunAnswer, query: URLSearchParams): Selection {
  const tasks = orderedTasks(run);
  const task = tasks.find((one) => one.name === query.get("task")) ?? firstOfInterest(tasks);
  if (!task) return null;
  const wanted = Number(query.get("attempt"));
  const attempt = task.attempts.some((one) => one.attempt === wanted) ? wanted : task.attempt;
  const step = query.get("step");
  if (query.get("task") !== task.name || step === null) return { task, attempt, step: stepOfInterest(task) };
  const number = step === "setup" ? -1 : Number(step);
  const known = Number.isInteger(number) && number >= 0 && number < task.steps.length;
  return { task, attempt, step: known ? number : "setup" };
}
