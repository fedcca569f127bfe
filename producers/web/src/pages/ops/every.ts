// What no stream of events tells: the state of processes. It is read again while the tab is visible.
import { useEffect, useRef } from "preact/hooks";

/** Calls `read` every `ms` while the tab is visible; null: never. */
export function useEvery(ms: number | null, read: () => void): void {
  const latest = useRef(read);
  latest.current = read;
  useEffect(() => {
    if (ms === null) return;
    const timer = setInterval(() => {
      if (!document.hidden) latest.current();
    }, ms);
    return () => clearInterval(timer);
  }, [ms]);
}
