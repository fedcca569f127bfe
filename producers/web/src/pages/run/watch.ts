// One run as it is, as it changes, and as it was: the answer, its history, and the moment that the address names.
import { computed, effect, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { useLayoutEffect, useMemo } from "preact/hooks";
import { ApiError, cameBack, get } from "../../api/client";
import { openStream, type Stream } from "../../api/stream";
import type { RunAnswer, RunCommit, RunHistoryAnswer } from "../../api/types";
import { query, setQuery } from "../../app/router";
import { isPosition, Replay } from "./replay";

/** The run config is half of an answer, and the page shows none of it. */
const BRIEF = { config: "false" };

/** A moment: the last commit up to it, and its time, at which logs are clipped. */
export type Moment = { number: number; commit: RunCommit; time: string };

export type Watch = {
  id: string;
  /** The run as it is shown: now, or at the moment. */
  answer: ReadonlySignal<RunAnswer | undefined>;
  /** The run as it is now. */
  latest: Signal<RunAnswer | undefined>;
  error: Signal<ApiError | undefined>;
  /** The history as far as it is read; `count` changes when it grows. */
  replay: Replay;
  count: Signal<number>;
  /** Whether all of the history up to now is read. */
  complete: Signal<boolean>;
  /** Who created the run; empty before the history is read. */
  creator: ReadonlySignal<string>;
  /** The moment that is shown; null: now. */
  moment: ReadonlySignal<Moment | null>;
  /** Why the moment in the address cannot be shown. */
  wrongMoment: ReadonlySignal<string>;
  /** Shows the run after a commit; null: now. */
  show: (number: number | null) => void;
  reload: () => void;
};

/** Waits until what was set is on the screen: a long history must not delay it. */
function shown(): Promise<void> {
  return new Promise((done) => (document.hidden ? done() : requestAnimationFrame(() => setTimeout(done))));
}

function watchRun(id: string): Watch & { start: () => () => void } {
  const replay = new Replay();
  const latest = signal<RunAnswer | undefined>(undefined);
  const error = signal<ApiError | undefined>(undefined);
  const count = signal(0);
  const complete = signal(false);
  const creator = computed(() => (count.value && replay.commits[0]?.actor) || "");
  const at = computed(() => query.value.get("at") ?? "");
  const found = computed(() => (at.value && count.value ? replay.numberAt(at.value) : null));
  const moment = computed<Moment | null>(() => {
    const number = found.value;
    const commit = number ? replay.commits[number - 1] : undefined;
    if (!number || !commit) return null;
    const asked = Date.parse(at.value);
    return { number, commit, time: isPosition(at.value) || Number.isNaN(asked) ? commit.time : new Date(asked).toISOString() };
  });
  const wrongMoment = computed(() => {
    if (!at.value || !complete.value || moment.value) return "";
    return found.value === 0 ? "The run did not exist yet" : "The address names no moment of this run";
  });
  const answer = computed(() => (moment.value ? replay.after(moment.value.number) : latest.value));
  let stream: Stream | null = null;
  let abort = new AbortController();

  const read = async (mine: AbortController): Promise<void> => {
    try {
      latest.value = await get<RunAnswer>(`/runs/${id}`, BRIEF, mine.signal);
      error.value = undefined;
      await shown();
      let ended = false;
      for (let from: number | null = replay.count + 1; from !== null; ) {
        const part: RunHistoryAnswer = await get<RunHistoryAnswer>(`/runs/${id}/history`, { ...BRIEF, from, count: 1000 }, mine.signal);
        replay.add(part);
        count.value = replay.count;
        from = part.next;
        ended = part.ended;
      }
      // The run may have gone on since it was read; of one that had ended, nothing would differ but the objects.
      if (!latest.peek()?.run.archived) latest.value = replay.after(replay.count) ?? latest.peek();
      complete.value = true;
      if (!ended) follow();
    } catch (failure) {
      if (mine.signal.aborted) return;
      if (!(failure instanceof ApiError)) throw failure;
      error.value = failure;
    }
  };
  const follow = (): void => {
    const last = replay.commits.at(-1);
    stream?.close();
    stream = openStream({
      path: `/runs/${id}/history`,
      query: BRIEF,
      after: last?.position ?? "",
      onEvents: (events) => {
        for (const event of events) {
          if (event.event === "commit") replay.append(JSON.parse(event.data) as RunCommit);
          // The log is another one, as after an import: the stream starts over.
          else if (event.event === "run") replay.restart(JSON.parse(event.data) as RunAnswer);
          else if (event.event === "end") stream?.close();
        }
        if (replay.count === count.peek()) return;
        latest.value = replay.after(replay.count);
        count.value = replay.count;
      },
      onState: (state) => {
        if (state.state === "refused") error.value = state.error;
      },
    });
  };
  const reload = (): void => {
    abort.abort();
    abort = new AbortController();
    void read(abort);
  };
  const start = (): (() => void) => {
    reload();
    let first = true;
    const stopBack = cameBack.subscribe(() => {
      // The stream resumes by itself; what was not read when the service went away is read now.
      if (!first && !complete.peek()) reload();
      first = false;
    });
    return () => {
      stopBack();
      abort.abort();
      stream?.close();
    };
  };
  const show = (number: number | null): void => {
    const commit = number === null ? undefined : replay.commits[number - 1];
    setQuery({ at: commit?.position ?? null });
  };
  return { id, answer, latest, error, replay, count, complete, creator, moment, wrongMoment, show, reload, start };
}

/** Watches a run while a component is shown. */
export function useRun(id: string): Watch {
  const watch = useMemo(() => watchRun(id), [id]);
  // Before the first paint: the answer takes longer.
  useLayoutEffect(() => watch.start(), [watch]);
  return watch;
}

/** Reads again by `read` whenever the run has changed, at most every `ms`. */
export function onChange(watch: Watch, ms: number, read: () => void): () => void {
  let timer = 0;
  let first = true;
  const stop = effect(() => {
    void watch.count.value;
    if (first) {
      first = false;
      return;
    }
    timer ||= window.setTimeout(() => {
      timer = 0;
      read();
    }, ms);
  });
  return () => {
    stop();
    clearTimeout(timer);
  };
}
