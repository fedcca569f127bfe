import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { RunAnswer, RunCommit } from "../src/api/types";
import { withChanges, type Change, type Path } from "../src/pages/run/changes";
import { Replay } from "../src/pages/run/replay";
import cases from "./histories.json";

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

function digest(answer: unknown): string {
  const sorted = JSON.stringify(answer, (_, value: unknown) =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return createHash("sha256").update(sorted).digest("hex");
}

for (const [index, { answer, commits, digests }] of cases.histories.entries()) {
  test(`played run ${index} is at each of its ${commits.length} commits what the service answers`, () => {
    const numbers = commits.map((one) => one.number);
    // Forth, back, and to and fro: a moment follows from the one shown before, or from a kept one.
    for (const order of [numbers, numbers.toReversed(), numbers.map((one) => 1 + (one * 7) % numbers.length)]) {
      const replay = new Replay();
      replay.add({ answer, commits } as unknown as Parameters<Replay["add"]>[0]);
      for (const number of order) assert.equal(digest(replay.after(number)), digests[number - 1], `commit ${number}`);
    }
  });
}

test("any document is made of any other one by the service's changes", () => {
  for (const { before, changes, removals, after } of cases.documents) {
    const unchanged = structuredClone(before);
    assert.deepEqual(withChanges<unknown>(before, changes as unknown as Change[], removals as unknown as Path[]), after);
    assert.deepEqual(before, unchanged);
  }
});
