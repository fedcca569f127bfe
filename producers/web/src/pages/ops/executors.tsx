// The executors: what they are, what they run, and why they take no tasks.
import { segment, send } from "../../api/client";
import { useGet } from "../../api/resource";
import type { ExecutorShape, ExecutorsAnswer } from "../../api/types";
import { Icon, type IconName } from "../../components/icon";
import { askDelete, attempt } from "../../components/overlay";
import { Empty, Loaded, PageHead } from "../../components/parts";
import type { Tone } from "../../components/state";
import { Code, Cut, ShortId, Text } from "../../components/text";
import { Ago } from "../../components/time";
import { counted } from "../../text/time";
import { useEvery } from "./every";

const STATES: Record<ExecutorShape["state"], { word: string; tone: Tone; icon: IconName; means: string }> = {
  ready: { word: "Ready", tone: "success", icon: "check", means: "takes tasks" },
  full: { word: "Full", tone: "warning", icon: "warning", means: "takes no tasks until there is room" },
  suspect: { word: "Suspect", tone: "warning", icon: "question", means: "was not heard for a while: it gets no new tasks" },
  draining: { word: "Draining", tone: "warning", icon: "pause", means: "gets no new tasks; those that run go on" },
  drained: { word: "Drained", tone: "neutral", icon: "pause", means: "gets no new tasks, and none run" },
  offline: { word: "Offline", tone: "neutral", icon: "disconnected", means: "has stopped" },
  lost: { word: "Lost", tone: "failed", icon: "disconnected", means: "was not heard for its lease: its tasks failed" },
  deleted: { word: "Removed", tone: "neutral", icon: "trash", means: "was removed" },
};

export function Executors() {
  const list = useGet<ExecutorsAnswer>("/executors");
  useEvery(5000, list.reload);
  return (
    <>
      <PageHead title="Executors" />
      <Loaded of={list}>
        {({ executors }) =>
          executors.length === 0 ? (
            <Empty icon="play" title="There are no executors"><p class="faint">Runs wait until there is one. This command starts one on another machine:</p><Code value="runstream serve --components executor" /></Empty>
          ) : (
            <div class="scroll">
              <table class="cards">
                <thead><tr><th>State</th><th>Executor</th><th>Takes</th><th class="number">Tasks</th><th>Labels</th><th class="number">Heard</th><td /></tr></thead>
                <tbody>{executors.map((one) => <Row key={one.executor_id} executor={one} reload={list.reload} />)}</tbody>
              </table>
            </div>
          )
        }
      </Loaded>
    </>
  );
}

function Row({ executor: one, reload }: { executor: ExecutorShape; reload: () => void }) {
  const state = STATES[one.state];
  const act = (action: "drain" | "undrain"): Promise<void> =>
    attempt(async () => {
      await send("PUT", `/executors/${segment(one.executor_id)}/actions`, { action_type: action });
      reload();
    });
  const kinds = [one.allow_host && "host tasks", one.allow_pod && "pods", one.allow_privileged_containers && "privileged containers"].filter(Boolean).join(", ");
  const labels = Object.entries(one.labels).map(([name, value]) => `${name}=${value}`).join(" ");
  const drains = one.state === "draining" || one.state === "drained";
  return (
    <tr>
      <td><span class={`state ${state.tone}`} title={state.means}><Icon name={state.icon} />{state.word}</span></td>
      <td><ShortId value={one.executor_id} /> <small class="faint"><Text value={one.version} />{one.executor_group && one.executor_group !== one.executor_id && <>, group <Text value={one.executor_group} /></>}</small>{one.full && <small class="failure"><Text value={one.full} /></small>}{Math.abs(one.clock_skew) > 2 && <small class="failure">its clock is {Math.abs(one.clock_skew).toFixed(1)} s {one.clock_skew > 0 ? "ahead" : "behind"}</small>}</td>
      <td class="wrap-text">{kinds || <span class="failure">nothing</span>}<small class="faint"> {one.archs.join(", ")}{one.sandbox && `; sandbox: ${one.sandbox}`}{one.engine && `; engine: ${one.engine}`}</small></td>
      <td class="number" data-label="Tasks">{one.active_tasks} of {one.active_tasks_limit || "any number"}</td>
      <td data-label="Labels"><Cut value={labels || "–"} /></td>
      <td class="number" data-label="Heard"><Ago at={one.last_seen} /></td>
      <td class="number">
        <button type="button" class="small" onClick={() => void act(drains ? "undrain" : "drain")}>{drains ? "Undrain" : "Drain"}</button>{" "}
        {(one.state === "offline" || one.state === "lost" || one.state === "drained") && <button type="button" class="small" aria-label="Remove the executor" onClick={() => askDelete({ what: "executor", verb: "Remove", text: <>It leaves the list. {one.active_tasks ? `${counted(one.active_tasks, "task")} of it fail as lost.` : "It runs no task."}</>, path: `/executors/${segment(one.executor_id)}`, then: reload })}><Icon name="trash" /></button>}
      </td>
    </tr>
  );
}
