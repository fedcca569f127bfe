// How the events of a commit are named.
type Said = { events: readonly { type: string }[] };

/** `RunStarted` as `run started`, `ExecutorTaskStarted` as `task started`. */
export function spaced(type: string): string {
  return type.replace(/^ExecutorTask/, "Task").replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase();
}

/** The events of a commit in a line, each kind once: `run numbered, run started`. */
export function saidBy({ events }: Said): string {
  return [...new Set(events.map((one) => spaced(one.type)))].join(", ");
}
