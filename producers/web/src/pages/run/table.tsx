// The tasks of a run as a table.
import type { RunAnswer, RunTaskShape } from "../../api/types";
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
  return (
    <div class="task-table">
      <table>
        <thead>
          <tr><th>State</th><th>Task</th><th class="optional">Depends on</th><th class="number optional">Started</th><th class="number">Waited</th><th class="number">Duration</th><th class="optional">Executor</th></tr>
        </thead>
        <tbody>
          {orderedTasks(run).map((task) => (
            <tr key={task.id} aria-selected={task.name === selected}>
              <td><StateBadge name={taskState(task)} /></td>
              <td class="grow"><a class="row-link cut" href={hrefOf(task)}><Text value={task.name} title /></a></td>
              <td class="optional depends"><Cut value={names(answer, task)} /></td>
              <td class="number optional"><Clock at={task.start_time} /></td>
              <td class="number">{task.skip || task.kept || task.status === "skipped" ? <span class="faint">–</span> : <Duration from={readyTime(run, task)} to={task.start_time ?? task.end_time ?? run.end_time ?? at} />}</td>
              <td class="number"><Duration from={task.start_time} to={task.end_time ?? at} />{task.attempt > 1 && <small class="faint"> attempt {task.attempt}</small>}</td>
              <td class="optional">{task.executor_id ? <ShortId value={task.executor_id} /> : <span class="faint">–</span>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function names({ run }: RunAnswer, task: RunTaskShape): string {
  return Object.keys(task.depends).map((id) => run.tasks[id]?.name ?? id).sort().join(", ");
}
