// What the commits of a run are on the time bar: which of them matter, and what each says.
import type { RunCommit } from "../../api/types";
import { saidBy } from "../../text/commit";
import { changesOf } from "../run/changes";
import type { TimeScale } from "../run/time-scale";

export type Mark = "failed" | "approved" | "retried" | "stopped";

/** What is worth a mark, by what the commit changed of the run. */
export function markOf(commit: RunCommit): Mark | null {
  for (const [path, value] of changesOf(commit)) {
    const name = path.at(-1);
    if (name === "status" && value === "failed") return "failed";
    if (name === "approved" && value === true) return "approved";
    if (name === "attempt" && Number(value) > 1) return "retried";
    if (name === "stop" && value === true) return "stopped";
  }
  return null;
}

/** The events of a commit in a line: `task started: lint`. */
export function words(commit: RunCommit): string {
  return [saidBy(commit) || commit.error, commit.task].filter(Boolean).join(": ");
}

/** The number of the commit nearest to a place of the axis. */
export function nearest(commits: readonly RunCommit[], scale: TimeScale, place: number): number {
  let found = 1;
  let least = Infinity;
  for (const commit of commits) {
    const distance = Math.abs(scale.place(Date.parse(commit.time)) - place);
    // Of several at one time, the last: it shows all of them.
    if (distance <= least) [found, least] = [commit.number, distance];
  }
  return found;
}
