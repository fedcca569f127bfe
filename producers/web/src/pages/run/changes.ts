// What a commit changes of the answer about a run (docs/reference/api.md, "The history of a run").
import type { RunCommit } from "../../api/types";

export type Path = readonly (string | number)[];
export type Change = readonly [Path, unknown];

/** The changes of a commit, with the types that the API's description cannot say. */
export function changesOf(commit: RunCommit): readonly Change[] {
  return commit.changes as unknown as readonly Change[];
}

/**
 * The document with these changes and without these paths. The given one stays as it is, and what is equal is shared.
 * `own` are parts that were made for this caller alone: they are changed in place, so that many changes copy once.
 */
export function withChanges<T>(document: T, changes: readonly Change[], removals: readonly Path[] = [], own = new Set<unknown>()): T {
  let found: unknown = document;
  for (const [path, value] of changes) found = changed(found, path, 0, value, own);
  for (const path of removals) found = removed(found, path, 0, own);
  return found as T;
}

type Container = Record<string | number, unknown>;

function changed(document: unknown, path: Path, depth: number, value: unknown, own: Set<unknown>): unknown {
  const key = path[depth];
  if (key === undefined) return value;
  const copy = owned(document ?? {}, own);
  copy[key] = changed(copy[key], path, depth + 1, value, own);
  return copy;
}

function removed(document: unknown, path: Path, depth: number, own: Set<unknown>): unknown {
  const key = path[depth];
  if (key === undefined || document === null || typeof document !== "object") return document;
  const copy = owned(document, own);
  if (depth === path.length - 1) delete copy[key];
  else copy[key] = removed(copy[key], path, depth + 1, own);
  return copy;
}

function owned(document: unknown, own: Set<unknown>): Container {
  if (own.has(document)) return document as Container;
  const copy = (Array.isArray(document) ? [...document] : { ...(document as object) }) as unknown as Container;
  own.add(copy);
  return copy;
}
