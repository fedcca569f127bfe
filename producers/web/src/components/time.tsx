// Times and durations, as the preferences of this browser want them; those that grow read the present.
import { now } from "../app/now";
import { zone } from "../app/preferences";
import { clock, duration, iso, relative } from "../text/time";

/** `3 min ago`; the exact time with its zone is in the tooltip. */
export function Ago({ at }: { at: string | null | undefined }) {
  if (!at) return <span class="faint">–</span>;
  const time = new Date(at);
  return <time dateTime={at} title={iso(time, zone.value)}>{relative(time, new Date(now.value), zone.value)}</time>;
}

/** `18:43:12`; the exact time with its zone is in the tooltip. */
export function Clock({ at }: { at: string | null | undefined }) {
  if (!at) return <span class="faint">–</span>;
  const time = new Date(at);
  return <time dateTime={at} title={iso(time, zone.value)}>{clock(time, new Date(now.peek()), zone.value)}</time>;
}

/** The time between two moments; without an end, it grows until `live` is false. */
export function Duration({ from, to, live = true }: { from: string | null | undefined; to?: string | null | undefined; live?: boolean }) {
  if (!from || (!to && !live)) return <span class="faint">–</span>;
  const start = Date.parse(from);
  const end = to ? Date.parse(to) : Math.max(now.value, start);
  const title = `${iso(new Date(start), zone.value)} to ${to ? iso(new Date(end), zone.value) : "now"}`;
  return <span class="duration" title={title}>{duration(end - start)}</span>;
}
