// /ui/runs/ID/log/TASK/STEP#L10-L20: the log of one step alone.
import { type Route, href, query } from "../../app/router";
import { Failure, Note, Skeleton, useTitle } from "../../components/parts";
import { StateBadge, taskState } from "../../components/state";
import { Text } from "../../components/text";
import { useRun } from "../run/watch";
import { LogView } from "./view";

export const logRoutes: readonly Route[] = [
  { pattern: "/runs/:id/log/:task/:step", title: "Log", render: ({ id = "", task = "", step = "" }) => <LogPage key={`${id} ${task} ${step}`} id={id} task={task} step={step} /> },
];

function LogPage({ id, task: name, step: text }: { id: string; task: string; step: string }) {
  const watch = useRun(id);
  const answer = watch.answer.value;
  const error = watch.error.value;
  const task = answer && Object.values(answer.run.tasks).find((one) => one.name === name);
  const number = Number(text);
  const step = text === "setup" || text === "" || !Number.isInteger(number) ? "setup" : number;
  const attempt = Number(query.value.get("attempt")) || task?.attempt || 1;
  const made = task?.attempts.find((one) => one.attempt === attempt) ?? task;
  const state = step === "setup" ? made?.setup_step : made?.steps[step];
  useTitle(`Log of ${name}`);
  if (error && (!answer || (error.status >= 400 && error.status < 500))) return <Failure error={error} retry={watch.reload} />;
  if (!answer) return <Skeleton lines={10} />;
  const back = href(`/runs/${id}`, { task: name, step: text, at: query.value.get("at") });
  if (!task || !state) return <Note icon="warning" tone="failed">The run has no such {task ? "step" : "task"}. <a href={href(`/runs/${id}`)}>Show the run</a></Note>;
  return (
    <div class="log-page">
      <header class="run-title">
        <StateBadge name={taskState(task)} />
        <h1><a href={back}><Text value={answer.run.name} /></a> / <Text value={task.name} /></h1>
        <span class="faint mono"><Text value={step === "setup" ? "setup" : (state.name || `step ${step}`)} /></span>
      </header>
      <LogView log={{ run: id, task: task.id, step, attempt }} ended={state.log_phase === "finished"} at={watch.moment.value?.time ?? null} />
    </div>
  );
}
