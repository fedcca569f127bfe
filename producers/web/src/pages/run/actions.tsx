// What can be done with a run: approve, pause, resume, cancel, stop, restart, delete.
import { send } from "../../api/client";
import type { CreateRunBody, RunAnswer, RunShape, RunTaskShape } from "../../api/types";
import { href, navigate } from "../../app/router";
import { Icon } from "../../components/icon";
import { askDelete, attempt, confirm, Menu, MenuItem } from "../../components/overlay";
import { Text } from "../../components/text";
import { counted } from "../../text/time";

type Verb = "stop" | "cancel" | "pause" | "resume";

function act(run: RunShape, verb: Verb, done: string): Promise<void> {
  return attempt(() => send("PUT", `/runs/${run.id}/actions`, { action_type: verb }), done);
}

export async function approve(run: RunShape, task: RunTaskShape): Promise<void> {
  await attempt(() => send("PUT", `/runs/${run.id}/tasks/${task.id}/actions`, { action_type: "approve" }), "Approved");
}

/** Restarts a run, and shows the new one. */
export async function restart(run: RunShape, body: CreateRunBody): Promise<void> {
  await attempt(async () => {
    const made = await send<RunAnswer>("POST", "/runs", { run_id: run.id, ...body });
    navigate(href(`/runs/${made.run.id}`));
  });
}

/** The actions that the run allows now. `disabled` while an earlier moment is shown. */
export function Actions({ run, disabled }: { run: RunShape; disabled: boolean }) {
  const waiting = Object.values(run.tasks).filter((one) => one.waiting_approval);
  const [first] = waiting;
  const open = run.phase === "queued" || run.phase === "running";
  const again = run.can_restart_from_scratch || run.can_restart_from_failed_tasks;
  return (
    <>
      {first && (
        <button type="button" class="primary" disabled={disabled} onClick={() => void Promise.all(waiting.map((task) => approve(run, task)))}>
          <Icon name="check" />
          {waiting.length === 1 ? <>Approve <Text value={first.name} /></> : `Approve ${counted(waiting.length, "task")}`}
        </button>
      )}
      {open && !run.stop && (run.paused_at
        ? <button type="button" disabled={disabled} onClick={() => void act(run, "resume", "Resumed")}><Icon name="play" />Resume</button>
        : <button type="button" disabled={disabled} onClick={() => void act(run, "pause", "Paused: no further task starts")}><Icon name="pause" />Pause</button>)}
      {run.phase === "queued" && <button type="button" disabled={disabled} onClick={() => askCancel(run)}><Icon name="cross" />Cancel</button>}
      {run.phase === "running" && !run.stop && <button type="button" disabled={disabled} onClick={() => askStop(run)}><Icon name="stop" />Stop</button>}
      {again && (
        <Menu label="Restart" icon="restart">
          {run.can_restart_from_failed_tasks && <MenuItem icon="restart" disabled={disabled} onClick={() => void restart(run, {})}>What did not succeed</MenuItem>}
          {run.can_restart_from_scratch && <MenuItem icon="restart" disabled={disabled} onClick={() => void restart(run, { from_start: true })}>All tasks</MenuItem>}
          <MenuItem icon="filter" href={href(`/runs/${run.id}/restart`)}>Choose tasks…</MenuItem>
        </Menu>
      )}
      <Menu label="More" icon="more" words={false}>
        <MenuItem icon="menu" href={href(`/runs/${run.id}/events`)}>Events of this run</MenuItem>
        <MenuItem icon="copy" href={href(`/runs/${run.id}/diff`)}>Compare with another run</MenuItem>
        {!open && <><hr /><MenuItem icon="trash" danger disabled={disabled} onClick={() => deleteRun(run)}>Delete run…</MenuItem></>}
      </Menu>
    </>
  );
}

function askStop(run: RunShape): void {
  const running = Object.values(run.tasks).filter((one) => one.status === "running").length;
  confirm({
    title: "Stop this run?",
    text: <p>{running ? `${counted(running, "running task")} will be ended, and no` : "No"} further task starts. A stopped run can be restarted.</p>,
    action: "Stop run",
    danger: true,
    run: () => send("PUT", `/runs/${run.id}/actions`, { action_type: "stop" }),
  });
}

function askCancel(run: RunShape): void {
  confirm({
    title: "Cancel this run?",
    text: <p>It leaves the queue and never starts.</p>,
    action: "Cancel run",
    danger: true,
    run: () => send("PUT", `/runs/${run.id}/actions`, { action_type: "cancel" }),
  });
}

function deleteRun(run: RunShape): void {
  const text = "Its logs and archives are removed, except those that other runs refer to. The events of the run stay in the log.";
  askDelete({ what: "run", text, path: `/runs/${run.id}`, then: () => navigate(href("/")) });
}
