// What `runstream doctor` finds that the gateway can know.
import { useGet } from "../../api/resource";
import type { Health as HealthAnswer } from "../../api/types";
import { Icon, type IconName } from "../../components/icon";
import { Loaded } from "../../components/parts";
import type { Tone } from "../../components/state";
import { Text } from "../../components/text";
import { Ago } from "../../components/time";
import { useEvery } from "./every";

const STATUS: Record<string, { word: string; tone: Tone; icon: IconName }> = {
  ok: { word: "Right", tone: "success", icon: "check" },
  warning: { word: "Look at it", tone: "warning", icon: "warning" },
  problem: { word: "Wrong", tone: "failed", icon: "cross" },
  unknown: { word: "Unknown", tone: "neutral", icon: "question" },
};
const ORDER = ["problem", "warning", "unknown", "ok"];

export function Health() {
  const health = useGet<HealthAnswer>("/health");
  useEvery(15_000, health.reload);
  return (
    <Loaded of={health}>
      {({ at, findings }) => (
        <>
          <table class="cards">
            <thead><tr><th>State</th><th>What</th><th>Found</th></tr></thead>
            <tbody>
              {[...findings].sort((a, b) => ORDER.indexOf(a.status) - ORDER.indexOf(b.status)).map((one) => {
                const status = STATUS[one.status] ?? { word: one.status, tone: "neutral", icon: "question" };
                return <tr key={one.what}><td><span class={`state ${status.tone}`}><Icon name={status.icon} />{status.word}</span></td><td><Text value={one.what} /></td><td class="grow wrap-text"><Text value={one.found} />{one.todo && <small class="faint"><Text value={one.todo} /></small>}</td></tr>;
              })}
            </tbody>
          </table>
          <p class="faint">Looked <Ago at={at} />. <code>runstream doctor</code> looks at the machine, too.</p>
        </>
      )}
    </Loaded>
  );
}
