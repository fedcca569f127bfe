// What this browser remembers: theme, zone. Nothing of it is secret, and the page works without storage.
import { effect, signal, type Signal } from "@preact/signals";
import type { Zone } from "../text/time";

export type Theme = "auto" | "light" | "dark";

/** A signal that is kept in this browser. */
export function remembered<T extends string>(name: string, values: readonly T[], initial: T): Signal<T> {
  const key = `runstream.${name}`;
  const stored = read(key);
  const state = signal<T>(values.find((one) => one === stored) ?? initial);
  effect(() => {
    const value = state.value;
    try {
      localStorage.setItem(key, value);
    } catch {
      // Storage is full or forbidden: the choice lasts as long as the page.
    }
  });
  return state;
}

function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export const theme = remembered<Theme>("theme", ["auto", "light", "dark"], "auto");
export const zone = remembered<Zone>("zone", ["local", "utc"], "local");

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});
