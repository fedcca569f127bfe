// Data of the API in a component: read once, read again when the key changes or the service came back.
import { useEffect, useMemo } from "preact/hooks";
import { signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { ApiError, cameBack, get } from "./client";
import type { Query } from "../app/router";

export type Resource<T> = {
  data: Signal<T | undefined>;
  error: ReadonlySignal<ApiError | undefined>;
  loading: ReadonlySignal<boolean>;
  /** Reads it again, after a read that is under way; what is shown stays until the answer is there. */
  reload: () => void;
};

/** Reads `path` with `query`; null reads nothing. Data of an earlier path is dropped, of an earlier query kept. */
export function useGet<T>(path: string | null, query: Query = {}): Resource<T> {
  const key = path === null ? null : `${path}?${JSON.stringify(query)}`;
  return useResource<T>(path, key, (abort) => get<T>(path ?? "", query, abort));
}

/** Reads by `read` when `key` changes; another `subject` drops the data. */
export function useResource<T>(subject: string | null, key: string | null, read: (abort: AbortSignal) => Promise<T>): Resource<T> {
  const state = useMemo(() => {
    const data = signal<T | undefined>(undefined);
    const error = signal<ApiError | undefined>(undefined);
    const loading = signal(key !== null);
    let reading: AbortController | null = null;
    let again = false;
    let current = read;
    const reload = (): void => {
      // Changes may come faster than answers: a new read for each would end the one before, and none would be shown.
      again = reading !== null;
      if (again) return;
      const mine = (reading = new AbortController());
      loading.value = true;
      const ended = (): boolean => {
        if (mine.signal.aborted) return true;
        reading = null;
        loading.value = again;
        if (again) reload();
        return false;
      };
      current(mine.signal).then(
        (value) => {
          if (ended()) return;
          data.value = value;
          error.value = undefined;
        },
        (failure: unknown) => {
          if (ended()) return;
          if (!(failure instanceof ApiError)) throw failure;
          error.value = failure;
        },
      );
    };
    return {
      data,
      error,
      loading,
      reload,
      reads: (next: typeof read) => {
        current = next;
      },
      end: () => {
        reading?.abort();
        reading = null;
      },
    };
  }, [subject]);
  state.reads(read);
  useEffect(() => {
    if (key === null) return;
    state.reload();
    let first = true;
    const stop = cameBack.subscribe(() => {
      if (!first) {
        state.end();
        state.reload();
      }
      first = false;
    });
    return () => {
      stop();
      state.end();
    };
  }, [state, key]);
  return state;
}
