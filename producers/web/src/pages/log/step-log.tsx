// The log of a step inside the page of its run.
import type { RunTaskShape, StepShape } from "../../api/types";
import { query } from "../../app/router";
import { LogView, logHref } from "./view";

type Props = { run: string; task: RunTaskShape; step: number | "setup"; attempt: number; state: StepShape; at: string | null };

export function StepLog({ run, task, step, attempt, state, at }: Props) {
  const own = logHref(run, task.name, step, { attempt: attempt === task.attempt ? null : attempt, at: query.value.get("at") });
  return <LogView log={{ run, task: task.id, step, attempt }} ended={state.log_phase === "finished"} at={at} own={own} />;
}
