// Reads a list again when runs change: the stream has the runs that the user may see.
import { useEffect, useRef } from "preact/hooks";
import { useStream } from "../../api/stream";

/** Changes arrive in bursts; a list is read at most this often. */
const READ_MS = 500;

/** Calls `reload` when runs have changed, while the tab is visible. */
export function useRunChanges(reload: () => void): void {
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
  useStream("runs", {
    path: "/runs/events",
    onEvents: soon,
    // What happened while the tab was hidden, or before the first event of a new stream.
    onState: ({ state }) => state === "live" && soon(),
  });
  useEffect(() => () => clearTimeout(timer.current), []);
}
