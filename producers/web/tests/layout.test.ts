import assert from "node:assert/strict";
import { test } from "node:test";
import { layOut, type Box } from "../src/pages/run/layout";

function edges(text: string): { from: string; to: string }[] {
  return text.split(" ").map((one) => ({ from: one[0] ?? "", to: one[1] ?? "" }));
}

const middle = (box: Box | undefined): number => (box ? box.y + box.height / 2 : NaN);

/** A graph of layers, each node with up to three parents before it: the same for the same seed. */
function random(seed: number, size: number): { nodes: string[]; edges: { from: string; to: string }[] } {
  let state = seed;
  const next = (below: number): number => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * below);
  };
  const nodes = Array.from({ length: size }, (_, index) => `n${index}`);
  const found = nodes.flatMap((to, index) => Array.from({ length: index ? next(4) : 0 }, () => ({ from: nodes[next(index)] ?? "", to })));
  return { nodes, edges: found.filter((one, index) => found.findIndex((other) => other.from === one.from && other.to === one.to) === index) };
}

test("a chain is a straight line, from left to right", () => {
  const { nodes, edges: drawn } = layOut(["a", "b", "c"], edges("ab bc"));
  assert.deepEqual(["a", "b", "c"].map((id) => middle(nodes.get(id))), [21, 21, 21]);
  assert.ok((nodes.get("a")?.x ?? 0) < (nodes.get("b")?.x ?? 0));
  assert.equal(drawn[0]?.path, "M172 21H212");
});

test("a diamond is even, and an edge over a layer passes beside its nodes", () => {
  const { nodes } = layOut(["a", "b", "c", "d"], edges("ab ac bd cd"));
  assert.equal(middle(nodes.get("a")), middle(nodes.get("d")));
  assert.equal(middle(nodes.get("a")) - middle(nodes.get("b")), middle(nodes.get("c")) - middle(nodes.get("a")));
  const over = layOut(["a", "b", "c"], edges("ab bc ac"));
  const lane = Number(/ 212 ([\d.]+)H380/.exec(over.edges[2]?.path ?? "")?.[1]);
  const b = over.nodes.get("b");
  assert.ok(b && (lane < b.y || lane > b.y + b.height), `${lane} is in ${JSON.stringify(b)}`);
});

test("crossings that need not be are gone", () => {
  const { nodes } = layOut(["a", "b", "c", "x", "y", "z"], edges("az by cx"));
  assert.deepEqual([..."abc"].map((id) => middle(nodes.get(id))), [..."zyx"].map((id) => middle(nodes.get(id))));
});

test("no boxes overlap, each is behind its parents, and the same graph is drawn the same", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const graph = random(seed, 60);
    const found = layOut(graph.nodes, graph.edges);
    const boxes = [...found.nodes.values()];
    boxes.forEach((one, index) => {
      assert.ok(one.x >= 0 && one.y >= 0 && one.x + one.width <= found.width && one.y + one.height <= found.height);
      for (const other of boxes.slice(index + 1)) assert.ok(one.x !== other.x || Math.abs(one.y - other.y) >= one.height, `${seed}`);
    });
    for (const { from, to } of graph.edges) assert.ok((found.nodes.get(from)?.x ?? 0) < (found.nodes.get(to)?.x ?? 0));
    assert.deepEqual(layOut(graph.nodes, graph.edges), found);
  }
});

test("thousands of nodes, a circle and nothing at all are laid out", () => {
  const graph = random(7, 2000);
  assert.equal(layOut(graph.nodes, graph.edges).nodes.size, 2000);
  assert.equal(layOut(["a", "b"], edges("ab ba")).nodes.size, 2);
  assert.deepEqual(layOut([], []).edges, []);
});
