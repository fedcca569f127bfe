// The tasks of a run as a table.
import type { RunAnswer, RunTaskShape } from "../../api/types";
import { Unless, useRows } from "../../components/rows";
import { StateBadge, taskState } from "../../components/state";
import { Cut, ShortId, Text } from "../../components/text";
import { Clock, Duration } from "../../components/time";
import { readyTime } from "./tasks";

type Props = {
  answer: RunAnswer;
  /** Those to show, in order. */
  tasks: readonly RunTaskShape[];
  selected: string;
  hrefOf: (task: RunTaskShape) => string;
  /** The moment that is shown; null: now. */
  at: string | null;
};

export function TaskTable({ answer, tasks, selected, hrefOf, at }: Props) {
  const { run } = answer;
  const { places, room, view } = useRows(tasks.length, tasks.findIndex((one) => one.name === selected));
  return (
    <div class="task-table" {...view}>
      <table aria-rowcount={tasks.length + 1}>
        <thead>
          <tr aria-rowindex={1}><th>State</th><th>Task</th><th class="optional">Depends on</th><th class="number optional">Started</th><th class="number">Waited</th><th class="number">Duration</th><th class="optional">Executor</th></tr>
        </thead>
        <tbody>
          {places.map((place) => {
            if ("gap" in place) return <tr key={`gap ${place.from}`} class="gap" aria-hidden="true"><td colSpan={7} style={{ height: room(place.gap) }} /></tr>;
            const task = tasks[place.row] as RunTaskShape;
            return (
              <Unless
                key={task.id}
                render={row}
                same={{
                  task,
                  number: place.row,
                  href: hrefOf(task),
                  chosen: task.name === selected,
                  parents: names(answer, task),
                  ready: readyTime(run, task),
                  until: task.end_time ?? run.end_time ?? at,
                }}
              />
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

type Row = { task: RunTaskShape; number: number; href: string; chosen: boolean; parents: string; ready: string | null; until: string | null };

function row({ task, number, href, chosen, parents, ready, until }: Row) {
  return (
    <tr data-row={number} aria-rowindex={number + 2} aria-selected={chosen}>
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
