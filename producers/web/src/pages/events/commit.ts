// A commit of the log, as `GET /events` sends it, and which ones a filter shows.
import { saidBy } from "../../text/commit";

export type LogCommit = {
  position: string;
  aggregate: string;
  version: number;
  time: string;
  actor: string;
  cause: string;
  commit: string;
  events: readonly { type: string; data: unknown }[];
};
/** A message that cannot be read. */
export type Unreadable = { position: string; subject: string; error: { message: string } | null };
export type Entry = { id: string; commit: LogCommit; unreadable?: undefined } | { id: string; commit?: undefined; unreadable: Unreadable };

export function entryOf(event: string, data: string): Entry | null {
  if (event === "commit") {
    const commit = JSON.parse(data) as LogCommit;
    return { id: commit.position, commit };
  }
  if (event === "unreadable") {
    const unreadable = JSON.parse(data) as Unreadable;
    return { id: unreadable.position, unreadable };
  }
  return null;
}

export type Filter = { kind: string; text: string };

export function shows({ kind, text }: Filter, entry: Entry): boolean {
  const { commit } = entry;
  if (!commit) return !kind && (!text || entry.id.includes(text));
  if (kind && !commit.aggregate.startsWith(`${kind}/`)) return false;
  if (!text) return true;
  const wanted = text.toLowerCase();
  const places = [commit.aggregate, commit.actor, commit.position, commit.commit, saidBy(commit), ...commit.events.map((one) => one.type)];
  return places.some((one) => one.toLowerCase().includes(wanted)) || JSON.stringify(commit.events).toLowerCase().includes(wanted);
}
