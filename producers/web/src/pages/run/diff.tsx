// /ui/runs/ID/diff: what differs in a run from another one, or from itself at an earlier moment.
import { useGet } from "../../api/resource";
import type { Difference, DiffSide, RunDiff, TaskTiming } from "../../api/types";
import { href, query, setQuery } from "../../app/router";
import { Empty, Loaded, PageHead, useTitle } from "../../components/parts";
import { runState, StateBadge } from "../../components/state";
import { Mono, Text } from "../../components/text";
import { Ago } from "../../components/time";
import { runRef } from "../../text/run";
import { duration } from "../../text/time";
import { told } from "./values";

const AREAS: readonly { area: Difference["area"]; title: string }[] = [
  { area: "source", title: "Source" },
  { area: "configuration", title: "Configuration" },
  { area: "environment", title: "Environment" },
  { area: "outcome", title: "Outcome" },
];

export function Diff({ id }: { id: string }) {
  useTitle("Compare runs");
  const given = (name: string): string => query.value.get(name) ?? "";
  const found = useGet<RunDiff>(`/runs/${id}/diff`, { vs: given("vs"), at: given("at"), vs_at: given("vs_at") });
  return (
    <>
      <PageHead title="Compare runs" />
      <form class="commit-filters" key={given("vs")} onSubmit={(event) => {
        event.preventDefault();
        setQuery({ vs: new FormData(event.currentTarget).get("vs")?.toString().trim(), vs_at: null }, { replace: false });
      }}>
        <input name="vs" defaultValue={given("vs")} placeholder="The last successful run before it" aria-label="Compare with: a run's id, a time or a position" spellcheck={false} />
        <button type="submit">Compare</button>
      </form>
      <Loaded of={found}>{(diff) => <Shown diff={diff} />}</Loaded>
    </>
  );
}

function Shown({ diff: { run, vs, differences, tasks } }: { diff: RunDiff }) {
  return (
    <>
      <table class="diff-sides"><tbody><Side label="Before" side={vs} /><Side label="After" side={run} /></tbody></table>
      {differences.length === 0 && <Empty icon="check" title="Nothing differs but the times" />}
      {AREAS.map(({ area, title }) => <Area key={area} title={title} differences={differences.filter((one) => one.area === area)} />)}
      <Timings tasks={tasks} />
    </>
  );
}

function Side({ label, side }: { label: string; side: DiffSide }) {
  return (
    <tr>
      <th scope="row">{label}</th>
      <td><StateBadge name={runState(side)} /></td>
      <td class="grow"><a href={href(`/runs/${side.id}`, { at: side.at })}><Text value={side.name} /></a> <span class="faint"><Text value={runRef(side)} /></span>{side.at && <small class="faint"> as of <Text value={side.at} /></small>}</td>
      <td class="number">{side.duration === null ? "–" : duration(side.duration * 1000)}</td>
      <td class="number"><Ago at={side.enqueue_time} /></td>
    </tr>
  );
}

function Area({ title, differences }: { title: string; differences: readonly Difference[] }) {
  if (!differences.length) return null;
  return (
    <section class="block">
      <h2>{title}</h2>
      <table class="changes">
        <thead><tr><th>Task</th><th>Field</th><th>Before</th><th>After</th></tr></thead>
        <tbody>
          {differences.map((one) => (
            <tr key={`${one.task} ${one.path.join("/")}`} data-kind={one.kind}>
              <td>{one.task ? <Text value={one.task} /> : <span class="faint">the run</span>}</td>
              <td><Mono value={one.path.join(" / ")} /></td>
              <td>{one.kind === "added" ? <span class="faint">–</span> : <Mono value={told(one.before)} />}</td>
              <td>{one.kind === "removed" ? <span class="faint">removed</span> : <Mono value={told(one.after)} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Timings({ tasks }: { tasks: readonly TaskTiming[] }) {
  const time = (seconds: number | null): string => (seconds === null ? "–" : duration(seconds * 1000));
  return (
    <section class="block">
      <h2>Durations</h2>
      <table>
        <thead><tr><th>Task</th><th class="number">Before</th><th class="number">After</th><th class="number">Change</th></tr></thead>
        <tbody>
          {tasks.map(({ task, before, after }) => (
            <tr key={task}>
              <td class="grow"><Text value={task} /></td>
              <td class="number">{time(before)}</td>
              <td class="number">{time(after)}</td>
              <td class="number">{before !== null && after !== null ? `${after < before ? "−" : "+"}${time(Math.abs(after - before))}` : ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
