// The horizontal axis of a timeline: times to places, with long idle stretches folded.

export type Interval = { from: number; to: number };
export type Fold = Interval & { at: number; width: number };
export type TimeScale = { place: (time: number) => number; folds: readonly Fold[]; ticks: readonly number[]; from: number; to: number };

/** An idle stretch is folded when it is longer than this part of the busy time, and than this time. */
const FOLDED_PART = 0.25;
const FOLDED_MS = 10_000;
/** The part of the axis that a folded stretch takes. */
const FOLD_WIDTH = 0.03;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400].map((one) => one * 1000);

/** The axis from `from` to `to`; `busy` are the intervals in which something ran. Places are from 0 to 1. */
export function timeScale(from: number, to: number, busy: readonly Interval[], folding: boolean, wantedTicks = 6): TimeScale {
  const end = Math.max(to, from + 1);
  const idle = folding ? idleStretches(from, end, busy) : [];
  const total = end - from;
  let folded = 0;
  for (const one of idle) folded += one.to - one.from;
  const room = 1 - FOLD_WIDTH * idle.length;
  const unit = room / Math.max(total - folded, 1);
  const place = (time: number): number => {
    let place = 0;
    let at = from;
    const wanted = Math.min(Math.max(time, from), end);
    for (const one of idle) {
      if (wanted <= one.from) break;
      place += (one.from - at) * unit;
      if (wanted < one.to) return place + (FOLD_WIDTH * (wanted - one.from)) / (one.to - one.from);
      place += FOLD_WIDTH;
      at = one.to;
    }
    return place + (wanted - at) * unit;
  };
  const folds = idle.map((one) => ({ ...one, at: place(one.from), width: FOLD_WIDTH }));
  return { place, folds, ticks: ticks(from, end, total - folded, idle, wantedTicks), from, to: end };
}

/** Where nothing ran, and which of these stretches are long. */
function idleStretches(from: number, to: number, busy: readonly Interval[]): Interval[] {
  const sorted = [...busy].sort((a, b) => a.from - b.from);
  const gaps: Interval[] = [];
  let reached = from;
  let worked = 0;
  for (const one of [...sorted, { from: to, to }]) {
    if (one.from > reached) gaps.push({ from: reached, to: one.from });
    worked += Math.max(0, one.to - Math.max(one.from, reached));
    reached = Math.max(reached, one.to);
  }
  return gaps.filter((one) => one.to - one.from > Math.max(worked * FOLDED_PART, FOLDED_MS));
}

function ticks(from: number, to: number, shown: number, folds: readonly Interval[], wanted: number): number[] {
  const step = STEPS.find((one) => shown / one <= wanted) ?? Math.ceil(shown / wanted / 86_400_000) * 86_400_000;
  const found: number[] = [];
  for (let time = from + step; time < to && found.length < 4 * wanted; time += step) {
    const fold = folds.find((one) => time > one.from && time < one.to);
    if (fold) time += Math.floor((fold.to - time) / step) * step;
    else found.push(time);
  }
  return found;
}
