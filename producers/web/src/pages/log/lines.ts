// The lines of a log that the page holds: one window of successive lines, which grows at either end.
import { request, get } from "../../api/client";
import type { Query } from "../../app/router";
import type { Line } from "./line-parser";

type LinesAnswer = { lines: readonly Line[]; next: number | null };

/** What the API calls a step's log. */
export type LogKey = { run: string; task: string; step: number | "setup"; attempt: number };

export function queryOfLog({ run, task, step, attempt }: LogKey): Query {
  return { runid: run, taskid: task, attempt, ...(step === "setup" ? { setup: true } : { step: String(step) }) };
}

/** Lines of one request. */
export const BATCH = 500;

/** Up to `count` lines from `from` on; fewer than asked where they are long, so that more requests may be needed. */
export async function readLines(key: LogKey, from: number, count: number, signal: AbortSignal): Promise<Line[]> {
  const found: Line[] = [];
  let first = from;
  while (found.length < count) {
    const query = { ...queryOfLog(key), from: first, count: Math.min(BATCH, count - found.length) };
    const { lines, next } = await get<LinesAnswer>("/logs/lines", query, signal);
    found.push(...lines);
    if (next === null || !lines.length) break;
    first = next;
  }
  return found;
}

/** The last line of the log as it is now; undefined for an empty one. */
export async function lastLine(key: LogKey, signal: AbortSignal): Promise<Line | undefined> {
  const { lines } = await get<LinesAnswer>("/logs/lines", { ...queryOfLog(key), from: -1, count: 1 }, signal);
  return lines.at(-1);
}

/** The number of the first line written after a time; `total` if there is none. Lines are in the order of their times. */
export async function firstAfter(key: LogKey, time: number, total: number, signal: AbortSignal): Promise<number> {
  let [low, high] = [0, total];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const [line] = await readLines(key, middle, 1, signal);
    if (line?.time && Date.parse(line.time) > time) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Reads the bytes of a log from an offset on, until the log has ended; true if it has. */
export async function followBytes(key: LogKey, offset: number, onBytes: (bytes: Uint8Array) => void, signal: AbortSignal): Promise<void> {
  const response = await request("GET", "/logs", { query: { ...queryOfLog(key), follow: true, offset }, headers: { Accept: "text/plain" }, signal });
  const reader = response.body?.getReader();
  while (reader) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes(value);
  }
}
