// Maintenance of each service, with every instance and what it waits for.
import { send } from "../../api/client";
import { useGet } from "../../api/resource";
import type { MaintenanceAnswer } from "../../api/types";
import { ask } from "../../components/forms";
import { Icon } from "../../components/icon";
import { attempt } from "../../components/overlay";
import { Loaded, Note } from "../../components/parts";
import { Cut, Text } from "../../components/text";
import { Ago } from "../../components/time";
import { useEvery } from "./every";

const SERVICES = [
  { name: "runs", title: "Runs", about: "Runs are created, started and ended by it." },
  { name: "config", title: "Projects and people", about: "Users, organizations, projects, secrets and variables change by it." },
] as const;

export function Maintenance() {
  return <>{SERVICES.map((one) => <Service key={one.name} {...one} />)}</>;
}

function Service({ name, title, about }: (typeof SERVICES)[number]) {
  const path = `/maintenance/${name}`;
  const found = useGet<MaintenanceAnswer>(path);
  useEvery(1000, found.reload);
  return (
    <section class="block">
      <Loaded of={found} lines={3}>
        {(state) => (
          <>
            <p class="tools">
              <strong>{title}</strong>
              <Mode state={state} />
              <span class="push" />
              {state.RequestedStatus ? (
                <button type="button" onClick={() => void attempt(async () => {
                  await send("DELETE", path, {});
                  found.reload();
                })}><Icon name="play" />End maintenance</button>
              ) : (
                <button type="button" onClick={() => ask({ title: `Maintenance of ${title.toLowerCase()}`, action: "Begin maintenance", text: <p>{about} It stands still until the maintenance ends; the page says so.</p>, fields: [{ name: "reason", label: "Reason", optional: true }, ...(name === "runs" ? [{ name: "deadline", label: "Time for running tasks", optional: true, hint: "such as 10m: they are stopped after it; empty: no limit" }] : [])], run: async (values) => {
                  await send("PUT", path, values);
                  found.reload();
                } })}><Icon name="pause" />Begin maintenance…</button>
              )}
            </p>
            {state.RequestedStatus && state.reason && <Note icon="info"><Text value={state.reason} /></Note>}
            <div class="scroll">
              <table>
                <thead><tr><th>Instance</th><th>Parts</th><th>State</th><th class="number">Version</th></tr></thead>
                <tbody>
                  {state.instances.map((one) => (
                    <tr key={one.id}>
                      <td><Text value={one.host} /> <small class="faint">process {one.pid}</small></td>
                      <td class="grow"><Cut value={one.components.join(", ")} /></td>
                      <td>{one.parked ? <span class="state neutral"><Icon name="pause" />stands still</span> : <span class="state running"><Icon name="play" /><Text value={one.state || "runs"} /></span>}</td>
                      <td class="number"><Text value={one.version} /></td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          </>
        )}
      </Loaded>
    </section>
  );
}

function Mode({ state }: { state: MaintenanceAnswer }) {
  if (state.RequestedStatus && state.CurrentStatus) return <span class="state warning" data-mode="maintenance"><Icon name="pause" />in maintenance{state.by && <>, by <Text value={state.by} /></>} <Ago at={state.since} /></span>;
  if (state.RequestedStatus) return <span class="state running" data-mode="entering"><Icon name="running" spin />going into maintenance</span>;
  return state.CurrentStatus ? <span class="state running" data-mode="leaving"><Icon name="running" spin />ending maintenance</span> : <span class="state success" data-mode="running"><Icon name="check" />works</span>;
}
