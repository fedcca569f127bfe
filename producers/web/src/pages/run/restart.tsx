// /ui/runs/ID/restart: which tasks run again and which are kept, before it happens.
import { useGet } from "../../api/resource";
import type { RestartPreview, RunAnswer } from "../../api/types";
import { href, query, setQuery } from "../../app/router";
import { Icon } from "../../components/icon";
import { Choice, Loaded, Note, PageHead, useTitle } from "../../components/parts";
import { Text } from "../../components/text";
import { counted } from "../../text/time";
import { restart } from "./actions";
import { Graph } from "./graph";
import { orderedTasks } from "./tasks";

const SCOPES = [
  { value: "failed", label: "What did not succeed" },
  { value: "all", label: "All tasks" },
  { value: "chosen", label: "Chosen tasks" },
] as const;
type Scope = (typeof SCOPES)[number]["value"];

export function Restart({ id }: { id: string }) {
  const found = useGet<RunAnswer>(`/runs/${id}`);
  useTitle("Restart");
  return <Loaded of={found}>{(answer) => <Form answer={answer} />}</Loaded>;
}

function Form({ answer }: { answer: RunAnswer }) {
  const { run } = answer;
  const chosen = query.value.getAll("task");
  const scope: Scope = SCOPES.find((one) => one.value === query.value.get("scope"))?.value ?? (chosen.length ? "chosen" : "failed");
  const descendants = query.value.has("descendants");
  const empty = scope === "chosen" && chosen.length === 0;
  const body = { ...(scope === "all" && { from_start: true }), ...(scope === "chosen" && { tasks: chosen, descendants }) };
  const preview = useGet<RestartPreview>(empty ? null : `/runs/${run.id}/restart/preview`, { from_start: scope === "all", ...(scope === "chosen" && { task: chosen, descendants }) });
  const shown = empty ? undefined : preview.data.value;
  const toggle = (name: string): readonly string[] => (chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name]);
  return (
    <>
      <PageHead title={<>Restart <a href={href(`/runs/${run.id}`)}><Text value={run.name} /></a></>} actions={<button type="button" class="primary" disabled={!shown?.possible} onClick={() => void restart(run, body)}><Icon name="restart" />Restart</button>} />
      <p class="tools">
        <Choice label="What runs again" options={SCOPES} value={scope} onChange={(value) => setQuery({ scope: value, task: value === "chosen" ? chosen : null })} />
        {scope === "chosen" && <label class="check"><input type="checkbox" checked={descendants} onChange={(event) => setQuery({ descendants: event.currentTarget.checked })} /> and the tasks that depend on them</label>}
      </p>
      {scope === "chosen" && (
        <fieldset class="choose"><legend class="unseen">Tasks to run again</legend>{orderedTasks(run).map((task) => <label key={task.id} class="check"><input type="checkbox" checked={chosen.includes(task.name)} onChange={() => setQuery({ scope, task: toggle(task.name) })} /> <Text value={task.name} /></label>)}</fieldset>
      )}
      {shown && !shown.possible && <Note icon="warning" tone="warning"><p><Text value={shown.reason} /></p>{shown.hint && <p class="faint"><Text value={shown.hint} /></p>}</Note>}
      {shown?.possible && <p role="status">{counted(shown.again.length, "task")} {shown.again.length === 1 ? "runs" : "run"} again, {shown.kept.length === 0 ? "none is kept" : `${counted(shown.kept.length, "task")} ${shown.kept.length === 1 ? "is" : "are"} kept`}.</p>}
      <Graph answer={shown?.possible ? previewed(answer, shown) : answer} selected="" at={null} hrefOf={(task) => href(`/runs/${run.id}/restart`, { scope: "chosen", task: toggle(task.name), descendants })} />
    </>
  );
}

/** The run as it begins after the restart: what runs again has not started. */
function previewed(answer: RunAnswer, preview: RestartPreview): RunAnswer {
  const again = new Set(preview.again);
  const tasks = Object.values(answer.run.tasks).map((task) => [
    task.id,
    again.has(task.name) ? { ...task, status: "notstarted", waiting_approval: false, not_before: null, start_time: null, end_time: null, attempt: 1 } : { ...task, kept: true },
  ]);
  return { ...answer, run: { ...answer.run, tasks: Object.fromEntries(tasks) as RunAnswer["run"]["tasks"] } };
}
