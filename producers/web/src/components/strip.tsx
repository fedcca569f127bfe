// The tasks of a run as a strip: how many have ended, and how.
import { counted } from "../text/time";
import { stateOf, type Tone } from "./state";

/** From the left: what has ended, what runs, what is to come. */
const ORDER = ["failed", "success", "stopped", "cancelled", "skipped", "running", "notstarted"] as const;
const MAX_BARS = 24;

type Part = { name: string; count: number; tone: Tone };

function partsOf(counts: Record<string, number>): Part[] {
  return ORDER.flatMap((name) => {
    const count = counts[name] ?? 0;
    return count ? [{ name, count, tone: stateOf(name).tone }] : [];
  });
}

/** One bar for each task while there are few, else one for each state, as wide as it has tasks. */
export function TaskStrip({ counts }: { counts: Record<string, number> }) {
  const parts = partsOf(counts);
  const total = parts.reduce((sum, part) => sum + part.count, 0);
  if (!total) return <span class="faint">–</span>;
  const words = parts.map((part) => `${part.count.toLocaleString("en")} ${stateOf(part.name).word.toLowerCase()}`).join(", ");
  const ended = total - (counts.running ?? 0) - (counts.notstarted ?? 0);
  return (
    <span class="strip" role="img" aria-label={`${counted(total, "task")}: ${words}`} title={`${counted(total, "task")}: ${words}`}>
      <span class="strip-bars">
        {total <= MAX_BARS
          ? parts.flatMap((part) => Array.from({ length: part.count }, (_, index) => <i key={`${part.name}${index}`} class={part.tone} />))
          : parts.map((part) => <i key={part.name} class={part.tone} style={{ flexGrow: part.count }} />)}
      </span>
      <span class="strip-count" aria-hidden="true">{ended}/{total}</span>
    </span>
  );
}
