// Why a run or one of its tasks waits, in the API's words.
import { useEffect } from "preact/hooks";
import { useGet } from "../../api/resource";
import type { ReasonShape, WhyAnswer } from "../../api/types";
import { Note } from "../../components/parts";
import { Text } from "../../components/text";
import { onChange, type Watch } from "./watch";

/** The reasons for which the run waits now; read again as the run changes. */
export function useWhy(watch: Watch): readonly ReasonShape[] {
  const run = watch.latest.value?.run;
  const waits = run !== undefined && (run.phase === "queued" || (run.phase === "running" && Object.values(run.tasks).some((one) => one.status === "notstarted")));
  const why = useGet<WhyAnswer>(waits ? `/runs/${watch.id}/why` : null);
  useEffect(() => (waits ? onChange(watch, 500, why.reload) : undefined), [watch, waits]);
  return waits ? (why.data.value?.reasons ?? []) : [];
}

/** The reasons that concern the run as a whole. */
export function WhyRun({ reasons }: { reasons: readonly ReasonShape[] }) {
  const found = reasons.filter((one) => one.tasks.length === 0);
  if (!found.length) return null;
  return (
    <Note icon="clock" tone="warning">
      <strong>Waits: </strong>
      {found.map((one, index) => <span key={one.code} data-reason={one.code}>{index > 0 && "; "}<Text value={one.message} /></span>)}
    </Note>
  );
}

/** The reasons for which one task waits. */
export function WhyTask({ reasons, task }: { reasons: readonly ReasonShape[]; task: string }) {
  const found = reasons.filter((one) => one.tasks.includes(task));
  if (!found.length) return null;
  return <Note icon="clock" tone="warning">{found.map((one) => <p key={one.code} data-reason={one.code}><Text value={one.message} /></p>)}</Note>;
}
