// A stream of events that resumes where it ended: after a lost connection, a restart of the gateway, a hidden tab.
//
// Browsers open six connections to a host over HTTP/1.1: a stream of every tab would leave none for requests. So a
// stream ends while its tab is hidden. `EventSource` could not resume it then; this one sends `Last-Event-ID` itself.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, cameBack, connection, request } from "./client";
import type { Query } from "../app/router";
import { EventParser, type StreamEvent } from "./sse";

export type StreamState =
  | { state: "connecting" | "live" | "hidden" | "ended" }
  | { state: "lost"; resumesAt: string; retryAt: number }
  | { state: "refused"; error: ApiError };

const FIRST_WAIT = 1000;
const MAX_WAIT = 15_000;
/** The gateway sends a comment every 15 s: a connection that is silent for longer is dead. */
const SILENCE = 40_000;

/** The state of the page's stream; the bar below the header shows a lost one. */
export const streamState = signal<StreamState>({ state: "ended" });

export type Stream = { close: () => void; lastId: () => string };

type Wanted = {
  path: string;
  query?: Query;
  /** Position to begin behind. */
  after?: string;
  /** Events that arrived since the last frame, in order. */
  onEvents: (events: StreamEvent[]) => void;
  onState?: (state: StreamState) => void;
};

/** Opens a stream; it lives until it is closed. */
export function openStream({ path, query = {}, after = "", onEvents, onState }: Wanted): Stream {
  let lastId = after;
  let abort = new AbortController();
  let closed = false;
  let wait = FIRST_WAIT;
  let timer = 0;
  let frame = 0;
  let arrived: StreamEvent[] = [];
  /** The server has nothing more to send, ever: it said so by the event `end`. */
  let over = false;

  const say = (state: StreamState): void => {
    if (closed) return;
    streamState.value = state;
    onState?.(state);
  };
  const flush = (): void => {
    frame = 0;
    const events = arrived;
    arrived = [];
    if (!closed && events.length) onEvents(events);
  };
  const again = (): void => {
    if (closed || document.hidden) return;
    say({ state: "lost", resumesAt: lastId, retryAt: Date.now() + wait });
    clearTimeout(timer);
    timer = window.setTimeout(start, wait * (0.75 + Math.random() / 4));
    wait = Math.min(wait * 2, MAX_WAIT);
  };
  const start = (): void => {
    clearTimeout(timer);
    abort.abort();
    if (closed || over) return;
    if (document.hidden) {
      say({ state: "hidden" });
      return;
    }
    abort = new AbortController();
    void read(abort);
  };
  const read = async (mine: AbortController): Promise<void> => {
    let silence = 0;
    const heard = (): void => {
      clearTimeout(silence);
      silence = window.setTimeout(() => mine.abort(), SILENCE);
    };
    try {
      if (streamState.peek().state !== "lost") say({ state: "connecting" });
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (lastId) headers["Last-Event-ID"] = lastId;
      heard();
      const response = await request("GET", path, { query, headers, signal: mine.signal });
      const parser = new EventParser(lastId);
      const decoder = new TextDecoder();
      const reader = response.body?.getReader();
      say({ state: "live" });
      wait = FIRST_WAIT;
      while (reader) {
        heard();
        const { done, value } = await reader.read();
        if (done) break;
        for (const event of parser.feed(decoder.decode(value, { stream: true }))) {
          if (event.event === "error") {
            await reader.cancel();
            break;
          }
          if (event.event === "end") over = true;
          lastId = event.id;
          arrived.push(event);
        }
        if (arrived.length && !frame) frame = requestAnimationFrame(flush);
      }
      if (abort !== mine) return;
      if (over) say({ state: "ended" });
      else again();
    } catch (error) {
      if (abort !== mine || closed) return;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429) {
        say({ state: "refused", error });
        return;
      }
      again();
    } finally {
      clearTimeout(silence);
    }
  };
  const onVisibility = (): void => {
    if (over) return;
    if (document.hidden) {
      clearTimeout(timer);
      abort.abort();
      abort = new AbortController();
      say({ state: "hidden" });
    } else {
      start();
    }
  };
  document.addEventListener("visibilitychange", onVisibility);
  let first = true;
  const stopBack = cameBack.subscribe(() => {
    if (!first && streamState.peek().state === "lost") start();
    first = false;
  });
  start();
  return {
    lastId: () => lastId,
    close: () => {
      if (closed) return;
      say({ state: "ended" });
      closed = true;
      stopBack();
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      abort.abort();
      document.removeEventListener("visibilitychange", onVisibility);
    },
  };
}

/** Opens the page's stream while a component is shown; null opens none. Another key opens another one. */
export function useStream(key: string | null, wanted: Wanted): void {
  const latest = useRef(wanted);
  latest.current = wanted;
  useEffect(() => {
    if (key === null) return;
    const stream = openStream({
      ...latest.current,
      onEvents: (events) => latest.current.onEvents(events),
      onState: (state) => latest.current.onState?.(state),
    });
    return () => stream.close();
  }, [key]);
}

/** True while neither requests nor the stream reach the service. */
export function disconnected(): boolean {
  return connection.value.state !== "ok" || streamState.value.state === "lost";
}
