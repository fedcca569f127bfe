// The present, once a second while the tab is visible: what shows an age reads it, and nothing else ticks.
import { signal } from "@preact/signals";

export const now = signal(Date.now());

function tick(): void {
  if (!document.hidden) now.value = Date.now();
}

setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
