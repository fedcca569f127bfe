// How long the last runs took, the latest at the right: a bar for each, which leads to it.
import type { GroupView } from "../../api/types";
import { href } from "../../app/router";
import { runState, stateOf } from "../../components/state";
import { visible } from "../../text/safe";
import { duration } from "../../text/time";

const HEIGHT = 120;
const BAR = 14;
const GAP = 4;
const AXIS = 60;
/** Bars end at this multiple of the median. */
const CUT = 6;

export function Durations({ of }: { of: GroupView }) {
  const bars = of.last.flatMap(({ run, took }) => (took === null ? [] : [{ run, size: took * 1000 }])).reverse();
  const middle = (of.median_took ?? 0) * 1000;
  const longest = Math.max(1, ...bars.map((bar) => bar.size));
  // One run that hung would leave nothing to see of the others: bars that are longer are cut.
  const top = middle > 0 ? Math.min(longest, CUT * middle) : longest;
  const y = (size: number): number => HEIGHT - (Math.min(size, top) / top) * (HEIGHT - 8);
  const width = AXIS + bars.length * (BAR + GAP);
  return (
    <figure class="durations">
      <svg viewBox={`0 0 ${width} ${HEIGHT + 1}`} width={width} height={HEIGHT + 1} role="group" aria-label="Durations of the last runs">
        <line x1={AXIS} x2={width} y1={HEIGHT + 0.5} y2={HEIGHT + 0.5} class="axis" />
        <text x={AXIS - 6} y={12} text-anchor="end">{longest > top && "> "}{duration(top)}</text>
        {middle > 0 && middle < top * 0.85 && <text x={AXIS - 6} y={y(middle) + 4} text-anchor="end">{duration(middle)}</text>}
        {middle > 0 && <line x1={AXIS} x2={width} y1={y(middle)} y2={y(middle)} class="median" />}
        {bars.map(({ run, size }, index) => {
          const state = stateOf(runState(run));
          const label = `${visible(run.name)} #${run.counter}: ${state.word.toLowerCase()} in ${duration(size)}`;
          return (
            <a key={run.id} href={href(`/runs/${run.id}`)} aria-label={label}>
              <title>{label}</title>
              <rect x={AXIS + index * (BAR + GAP)} y={0} width={BAR + GAP} height={HEIGHT} class="hit" />
              <rect x={AXIS + index * (BAR + GAP)} y={Math.min(y(size), HEIGHT - 2)} width={BAR} height={Math.max(2, HEIGHT - y(size))} rx={2} class={`duration-bar ${state.tone}`} />
              {size > top && <rect x={AXIS + index * (BAR + GAP)} y={18} width={BAR} height={3} class="gap" />}
            </a>
          );
        })}
      </svg>
      <figcaption class="faint small">
        {`Median: ${duration(middle)}`}{of.median_waited !== null && `, and ${duration(of.median_waited * 1000)} in the queue`}. The latest run is at the right.
      </figcaption>
    </figure>
  );
}
