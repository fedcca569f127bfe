import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunAnswer, RunCommit } from "../src/api/types";
import { withChanges } from "../src/pages/run/changes";
import { Replay } from "../src/pages/run/replay";

function commit(number: number, changes: RunCommit["changes"] = [], removals: RunCommit["removals"] = []): RunCommit {
  return { number, position: `1/0/${number * 10}`, time: `2026-11-29T12:00:0${number}Z`, changes, removals } as unknown as RunCommit;
}

test("changes make a new document and share what they leave", () => {
  const before = { run: { tasks: { a: { status: "running", steps: [1, 2] }, b: { status: "running" } } } };
  const after = withChanges(before, [[["run", "tasks", "a", "status"], "failed"], [["run", "tasks", "a", "steps", 2], 3]], [["run", "tasks", "a", "missing"]]);
  assert.deepEqual(after, { run: { tasks: { a: { status: "failed", steps: [1, 2, 3] }, b: { status: "running" } } } });
  assert.equal(before.run.tasks.a.status, "running");
  assert.equal(after.run.tasks.b, before.run.tasks.b);
});

test("a key that is removed is gone, and its neighbours stay", () => {
  assert.deepEqual(withChanges({ a: { b: 1, c: 2 } }, [], [["a", "b"]]), { a: { c: 2 } });
});

test("a run is replayed to any commit, in any order", () => {
  const replay = new Replay();
  replay.add({ answer: { run: { counter: 1 } } as unknown as RunAnswer, commits: [commit(1)] });
  for (let number = 2; number <= 9; number += 1) replay.append(commit(number, [[["run", "counter"], number]]));
  for (const wanted of [9, 1, 5, 4, 9, 2]) assert.equal(replay.after(wanted)?.run.counter, wanted);
  assert.equal(replay.after(0), undefined);
  assert.equal(replay.after(10), undefined);
});

test("a commit that comes twice or too early is left out", () => {
  const replay = new Replay();
  replay.add({ answer: {} as RunAnswer, commits: [commit(1)] });
  replay.append(commit(1));
  replay.append(commit(3));
  assert.equal(replay.count, 1);
});

test("a moment is a position or a time; before the run there is none", () => {
  const replay = new Replay();
  replay.add({ answer: {} as RunAnswer, commits: [commit(1), commit(2), commit(3)] });
  assert.equal(replay.numberAt("1/0/20"), 2);
  assert.equal(replay.numberAt("1/0/29"), 2);
  assert.equal(replay.numberAt("2026-11-29T12:00:03.500Z"), 3);
  assert.equal(replay.numberAt("2026-11-29T11:00:00Z"), 0);
  assert.equal(replay.numberAt("yesterday"), null);
});
