import assert from "node:assert/strict";
import { test } from "node:test";
import { timeScale } from "../src/pages/run/time-scale";

test("without idle time, places are in proportion to time", () => {
  const { place, folds } = timeScale(1000, 3000, [{ from: 1000, to: 3000 }], true);
  assert.equal(folds.length, 0);
  assert.deepEqual([place(1000), place(2000), place(3000)], [0, 0.5, 1]);
});

test("a long idle stretch takes little room, and times keep their order", () => {
  const hour = 3_600_000;
  const { place, folds } = timeScale(0, hour + 20_000, [{ from: 0, to: 10_000 }, { from: hour, to: hour + 20_000 }], true);
  assert.equal(folds.length, 1);
  const times = [0, 5000, 10_000, hour / 2, hour, hour + 10_000, hour + 20_000];
  const places = times.map(place);
  assert.deepEqual(places, places.toSorted((a, b) => a - b));
  assert.equal(new Set(places).size, times.length);
  assert.ok(place(10_000) > 0.3);
  assert.ok(Math.abs(place(hour + 20_000) - 1) < 1e-9);
});

test("ticks are never within a folded stretch, and never many", () => {
  const hour = 3_600_000;
  const { ticks, folds } = timeScale(0, 10 * hour, [{ from: 0, to: hour }, { from: 9 * hour, to: 10 * hour }], true);
  assert.ok(ticks.length > 0 && ticks.length < 24);
  for (const tick of ticks) assert.ok(!folds.some((one) => tick > one.from && tick < one.to), String(tick));
});
