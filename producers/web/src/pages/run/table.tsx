// The tasks of a run as a table.
import type { RunAnswer, RunTaskShape } from "../../api/types";
import { Unless, useGrowing } from "../../components/rows";
import { StateBadge, taskState } from "../../components/state";
import { Cut, ShortId, Text } from "../../components/text";
import { Clock, Duration } from "../../components/time";
import { orderedTasks, readyTime } from "./tasks";

type Props = {
  answer: RunAnswer;
  selected: string;
  hrefOf: (task: RunTaskShape) => string;
  /** The moment that is shown; null: now. */
  at: string | null;
};

export function TaskTable({ answer, selected, hrefOf, at }: Props) {
  const { run } = answer;
  const tasks = orderedTasks(run);
  const shown = useGrowing(tasks.length);
  return (
    <div class="task-table">
      <table>
        <thead>
          <tr><th>State</th><th>Task</th><th class="optional">Depends on</th><th class="number optional">Started</th><th class="number">Waited</th><th class="number">Duration</th><th class="optional">Executor</th></tr>
        </thead>
        <tbody>
          {tasks.slice(0, shown).map((task) => (
            <Unless
              key={task.id}
              render={row}
              same={{
                task,
                href: hrefOf(task),
                chosen: task.name === selected,
                parents: names(answer, task),
                ready: readyTime(run, task),
                until: task.end_time ?? run.end_time ?? at,
              }}
            />
          ))}
        </tbody>
      </table>
    </div>
  );
}

type Row = { task: RunTaskShape; href: string; chosen: boolean; parents: string; ready: string | null; until: string | null };

function row({ task, href, chosen, parents, ready, until }: Row) {
  return (
    <tr aria-selected={chosen}>
      <td><StateBadge name={taskState(task)} /></td>
      <td class="grow"><a class="row-link cut" href={href}><Text value={task.name} title /></a></td>
      <td class="optional depends"><Cut value={parents} /></td>
      <td class="number optional"><Clock at={task.start_time} /></td>
      <td class="number">{task.skip || task.kept || task.status === "skipped" ? <span class="faint">–</span> : <Duration from={ready} to={task.start_time ?? until} />}</td>
      <td class="number"><Duration from={task.start_time} to={until} />{task.attempt > 1 && <small class="faint"> attempt {task.attempt}</small>}</td>
      <td class="optional">{task.executor_id ? <ShortId value={task.executor_id} /> : <span class="faint">–</span>}</td>
    </tr>
  );
}

function names({ run }: RunAnswer, task: RunTaskShape): string {
  return Object.keys(task.depends).map((id) => run.tasks[id]?.name ?? id).sort().join(", ");
}
