// Reads a list again when runs change: by the stream of events, or, for users who may not read it, from time to time.
import { useEffect, useRef } from "preact/hooks";
import { session } from "../../api/session";
import { useStream } from "../../api/stream";

/** Changes arrive in bursts; a list is read at most this often. */
const READ_MS = 500;
const POLL_MS = 5000;

/** Calls `reload` when runs have changed, while the tab is visible. */
export function useRunChanges(reload: () => void): void {
  const all = session.value?.admin ?? false;
  const timer = useRef(0);
  const latest = useRef(reload);
  latest.current = reload;
  const soon = (): void => {
    if (timer.current) return;
    timer.current = window.setTimeout(() => {
      timer.current = 0;
      latest.current();
    }, READ_MS);
  };
  useStream(all ? "runs" : null, {
    path: "/runs/events",
    onEvents: soon,
    // What happened while the tab was hidden, or before the first event of a new stream.
    onState: ({ state }) => state === "live" && soon(),
  });
  useEffect(() => {
    if (all) return;
    const poll = setInterval(() => {
      if (!document.hidden) latest.current();
    }, POLL_MS);
    return () => clearInterval(poll);
  }, [all]);
  useEffect(() => () => clearTimeout(timer.current), []);
}
