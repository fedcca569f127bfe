// Times and durations as people read them. Every function is pure: the present and the zone are parameters.

export type Zone = "local" | "utc";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const two = (value: number): string => String(value).padStart(2, "0");

/** `2026-11-29T18:43:12.120+01:00`: for tooltips and copies. */
export function iso(time: Date, zone: Zone): string {
  if (zone === "utc") return time.toISOString();
  const offset = -time.getTimezoneOffset();
  const shifted = new Date(time.getTime() + offset * MINUTE).toISOString().slice(0, -1);
  const size = Math.abs(offset);
  return `${shifted}${offset < 0 ? "-" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

/** `18:43:12`, with the date in front on another day than `now`. */
export function clock(time: Date, now: Date, zone: Zone): string {
  const text = iso(time, zone);
  const day = text.slice(0, 10);
  return day === iso(now, zone).slice(0, 10) ? text.slice(11, 19) : `${day} ${text.slice(11, 16)}`;
}

/** `3 min ago`, `in 12 s`; the date when it is more than two weeks away. */
export function relative(time: Date, now: Date, zone: Zone): string {
  const past = now.getTime() - time.getTime();
  const size = Math.abs(past);
  if (size >= 14 * DAY) return iso(time, zone).slice(0, 10);
  if (size < 5 * SECOND) return "just now";
  const [amount, unit] =
    size < MINUTE ? [size / SECOND, "s"] : size < HOUR ? [size / MINUTE, "min"] : size < DAY ? [size / HOUR, "h"] : [size / DAY, "d"];
  const text = `${Math.floor(amount)} ${unit}`;
  return past > 0 ? `${text} ago` : `in ${text}`;
}

/** `44ms`, `1.4s`, `12s`, `3m 04s`, `2h 05m`, `3d 04h`: at most two units, of milliseconds. */
export function duration(milliseconds: number): string {
  const size = Math.max(0, milliseconds);
  if (size < SECOND) return `${Math.floor(size)}ms`;
  if (size < 10 * SECOND) return `${(Math.floor(size / 100) / 10).toFixed(1)}s`;
  if (size < MINUTE) return `${Math.floor(size / SECOND)}s`;
  if (size < HOUR) return `${Math.floor(size / MINUTE)}m ${two(Math.floor((size % MINUTE) / SECOND))}s`;
  if (size < DAY) return `${Math.floor(size / HOUR)}h ${two(Math.floor((size % HOUR) / MINUTE))}m`;
  return `${Math.floor(size / DAY)}d ${two(Math.floor((size % DAY) / HOUR))}h`;
}

/** `1,234 runs`, `1 run`. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** `1.5 MiB`. */
export function bytes(size: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = size;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
