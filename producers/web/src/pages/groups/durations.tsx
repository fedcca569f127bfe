// How long the last runs took, the latest at the right: a bar for each, which leads to it.
import type { RunSummaryShape } from "../../api/types";
import { href } from "../../app/router";
import { runState, stateOf } from "../../components/state";
import { visible } from "../../text/safe";
import { duration } from "../../text/time";

const HEIGHT = 120;
const BAR = 14;
const GAP = 4;
const AXIS = 60;

type Bar = { run: RunSummaryShape; size: number };

function barsOf(runs: readonly RunSummaryShape[]): Bar[] {
  return runs.flatMap((run) => (run.start_time && run.end_time ? [{ run, size: Math.max(0, Date.parse(run.end_time) - Date.parse(run.start_time)) }] : [])).reverse();
}

/** The middle one; the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

export function Durations({ runs }: { runs: readonly RunSummaryShape[] }) {
  const bars = barsOf(runs);
  const longest = Math.max(1, ...bars.map((bar) => bar.size));
  const good = bars.filter((bar) => bar.run.result === "success").map((bar) => bar.size);
  const middle = median(good);
  const y = (size: number): number => HEIGHT - (size / longest) * (HEIGHT - 8);
  const width = AXIS + bars.length * (BAR + GAP);
  return (
    <figure class="durations">
      <svg viewBox={`0 0 ${width} ${HEIGHT + 1}`} width={width} height={HEIGHT + 1} role="group" aria-label="Durations of the last runs">
        <line x1={AXIS} x2={width} y1={HEIGHT + 0.5} y2={HEIGHT + 0.5} class="axis" />
        <text x={AXIS - 6} y={12} text-anchor="end">{duration(longest)}</text>
        {good.length > 1 && middle < longest * 0.85 && <text x={AXIS - 6} y={y(middle) + 4} text-anchor="end">{duration(middle)}</text>}
        {good.length > 1 && <line x1={AXIS} x2={width} y1={y(middle)} y2={y(middle)} class="median" />}
        {bars.map(({ run, size }, index) => {
          const state = stateOf(runState(run));
          const label = `${visible(run.name)} #${run.counter}: ${state.word.toLowerCase()} in ${duration(size)}`;
          return (
            <a key={run.id} href={href(`/runs/${run.id}`)} aria-label={label}>
              <title>{label}</title>
              <rect x={AXIS + index * (BAR + GAP)} y={0} width={BAR + GAP} height={HEIGHT} class="hit" />
              <rect x={AXIS + index * (BAR + GAP)} y={Math.min(y(size), HEIGHT - 2)} width={BAR} height={Math.max(2, HEIGHT - y(size))} rx={2} class={`duration-bar ${state.tone}`} />
            </a>
          );
        })}
      </svg>
      <figcaption class="faint small">
        {good.length > 1 ? `Median of the successful ones: ${duration(middle)}` : "The latest is at the right"}
      </figcaption>
    </figure>
  );
}
