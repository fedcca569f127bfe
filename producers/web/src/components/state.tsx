// The states of runs, tasks and steps: an icon, a word and a colour, the same on every page.
import { Icon, type IconName } from "./icon";

export type Tone = "neutral" | "waiting" | "running" | "success" | "failed" | "warning";
export type State = { word: string; icon: IconName; tone: Tone };

const STATES = {
  setuperror: { word: "Setup error", icon: "warning", tone: "failed" },
  queued: { word: "Queued", icon: "clock", tone: "waiting" },
  paused: { word: "Paused", icon: "pause", tone: "warning" },
  approval: { word: "Needs approval", icon: "hand", tone: "warning" },
  running: { word: "Running", icon: "running", tone: "running" },
  stopping: { word: "Stopping", icon: "running", tone: "warning" },
  success: { word: "Success", icon: "check", tone: "success" },
  failed: { word: "Failed", icon: "cross", tone: "failed" },
  failing: { word: "Failing", icon: "running", tone: "failed" },
  timedout: { word: "Timed out", icon: "clock", tone: "failed" },
  lost: { word: "Executor lost", icon: "disconnected", tone: "failed" },
  stopped: { word: "Stopped", icon: "stop", tone: "neutral" },
  cancelled: { word: "Cancelled", icon: "dash", tone: "neutral" },
  skipped: { word: "Skipped", icon: "skip", tone: "neutral" },
  notstarted: { word: "Waiting", icon: "clock", tone: "waiting" },
  retrying: { word: "Waits to retry", icon: "restart", tone: "warning" },
  unknown: { word: "Unknown", icon: "question", tone: "neutral" },
} as const satisfies Record<string, State>;

export type StateName = keyof typeof STATES;

export function stateOf(name: string): State {
  return STATES[name as StateName] ?? STATES.unknown;
}

type RunLike = {
  phase: string;
  result: string;
  stop?: boolean;
  timedout?: boolean;
  paused_at?: string | null;
  tasks_waiting_approval?: readonly string[];
};

/** What a run is, in one word. */
export function runState(run: RunLike): StateName {
  switch (run.phase) {
    case "setuperror":
    case "cancelled":
      return run.phase;
    case "queued":
      return run.paused_at ? "paused" : "queued";
    case "running":
      if (run.stop) return "stopping";
      if (run.result === "failed") return "failing";
      if (run.paused_at) return "paused";
      return run.tasks_waiting_approval?.length ? "approval" : "running";
    default:
      if (run.timedout) return "timedout";
      return run.result in STATES ? (run.result as StateName) : "unknown";
  }
}

type TaskLike = { status: string; timedout?: boolean; failure?: string; waiting_approval?: boolean; not_before?: string | null };

/** What a task is, in one word. */
export function taskState(task: TaskLike): StateName {
  if (task.status === "failed" && task.failure === "lost") return "lost";
  if (task.status === "failed" && task.timedout) return "timedout";
  if (task.status === "notstarted") return task.waiting_approval ? "approval" : task.not_before ? "retrying" : "notstarted";
  return task.status in STATES ? (task.status as StateName) : "unknown";
}

/** Icon and word; with `quiet`, the icon alone with the word for screen readers and in the tooltip. */
export function StateBadge({ name, quiet = false }: { name: StateName; quiet?: boolean }) {
  const state = stateOf(name);
  return (
    <span class={`state ${state.tone}`} data-state={name} title={quiet ? state.word : undefined}>
      <Icon name={state.icon} spin={state.icon === "running"} />
      <span class={quiet ? "unseen" : ""}>{state.word}</span>
    </span>
  );
}
