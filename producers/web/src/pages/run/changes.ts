// What a commit changes of the answer about a run (docs/reference/api.md, "The history of a run").
import type { RunCommit } from "../../api/types";

export type Path = readonly (string | number)[];
export type Change = readonly [Path, unknown];

/** The changes of a commit, with the types that the API's description cannot say. */
export function changesOf(commit: RunCommit): readonly Change[] {
  return commit.changes as unknown as readonly Change[];
}

/** The document with these changes and without these paths. The given one stays as it is, and what is equal is shared. */
export function withChanges<T>(document: T, changes: readonly Change[], removals: readonly Path[] = []): T {
  let found: unknown = document;
  for (const [path, value] of changes) found = changed(found, path, 0, value);
  for (const path of removals) found = removed(found, path, 0);
  return found as T;
}

function changed(document: unknown, path: Path, depth: number, value: unknown): unknown {
  const key = path[depth];
  if (key === undefined) return value;
  if (Array.isArray(document)) {
    const copy: unknown[] = [...document];
    copy[Number(key)] = changed(copy[Number(key)], path, depth + 1, value);
    return copy;
  }
  const object = (document ?? {}) as Record<string, unknown>;
  return { ...object, [key]: changed(object[key], path, depth + 1, value) };
}

function removed(document: unknown, path: Path, depth: number): unknown {
  const key = path[depth];
  if (key === undefined || document === null || typeof document !== "object") return document;
  const copy = { ...document } as Record<string, unknown>;
  if (depth === path.length - 1) delete copy[key];
  else copy[key] = removed(copy[key], path, depth + 1);
  return copy;
}
