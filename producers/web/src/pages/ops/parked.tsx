// Commits that could not be read or applied, and what waits behind them.
import { useState } from "preact/hooks";
import { send } from "../../api/client";
import { useGet } from "../../api/resource";
import type { ParkedCommitView, ParkedList, SkippedList } from "../../api/types";
import { ask } from "../../components/forms";
import { attempt } from "../../components/overlay";
import { Choice, Empty, Loaded } from "../../components/parts";
import { Mono, Text } from "../../components/text";
import { Ago } from "../../components/time";

const SERVICES = [{ value: "runs", label: "Runs" }, { value: "config", label: "Projects and people" }] as const;

export function Parked() {
  const [service, setService] = useState<"runs" | "config">("runs");
  const parked = useGet<ParkedList>("/parked", { service });
  const skipped = useGet<SkippedList>("/parked/skipped", { service });
  const reload = (): void => {
    parked.reload();
    skipped.reload();
  };
  return (
    <>
      <p class="tools">
        <Choice label="Service" options={SERVICES} value={service} onChange={setService} />
        <span class="faint">A commit that cannot be applied is set aside; what follows it in its aggregate waits behind it, and everything else goes on.</span>
        <button type="button" class="push" onClick={() => void attempt(async () => {
          await send("PUT", "/parked/actions", { action_type: "retry", positions: [] }, { service });
          reload();
        }, "They are tried again")}>Retry all</button>
      </p>
      <Loaded of={parked}>
        {({ parked: found, more }) =>
          found.length === 0 ? <Empty icon="check" title="No commit is parked" /> : (
            <>
              <table class="cards">
                <thead><tr><th>Position</th><th>Aggregate</th><th>Why</th><th class="number">Since</th><td /></tr></thead>
                <tbody>{found.map((one) => <tr key={one.position}><td><Mono value={one.position} /></td><td><Mono value={one.aggregate} /></td><td class="grow wrap-text"><Text value={one.reason} /></td><td class="number"><Ago at={one.at} /></td><td class="number"><button type="button" class="small" onClick={() => skip(one, service, reload)}>Skip…</button></td></tr>)}</tbody>
              </table>
              {more && <p class="faint">There are more: <code>runstream parked list</code> shows all.</p>}
            </>
          )
        }
      </Loaded>
      <Loaded of={skipped} lines={1}>
        {({ skipped: found }) => found.length === 0 ? null : (
          <section class="block">
            <h2>Skipped</h2>
            <table class="cards">
              <thead><tr><th>Position</th><th>By</th><th>Reason</th><th class="number">When</th></tr></thead>
              <tbody>{found.map((one) => <tr key={one.position}><td><Mono value={one.skipped} /></td><td><Text value={one.by} /></td><td class="grow wrap-text"><Text value={one.reason} /></td><td class="number"><Ago at={one.at} /></td></tr>)}</tbody>
            </table>
          </section>
        )}
      </Loaded>
    </>
  );
}

function skip(commit: ParkedCommitView, service: string, reload: () => void): void {
  ask({
    title: "Skip this commit?",
    action: "Skip commit",
    text: <p>It counts as a commit without events from now on, and what waits behind it goes on. That is an event itself; it cannot be taken back.</p>,
    fields: [{ name: "reason", label: "Reason" }],
    run: async ({ reason }) => {
      await send("PUT", `/parked/${commit.position}/actions`, { action_type: "skip", reason }, { service });
      reload();
    },
  });
}
