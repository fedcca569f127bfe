// Where the tasks of a graph are: layers from left to right, with few crossings. In a chunk of its own, with dagre.
import { Graph, layout } from "@dagrejs/dagre";

export type Box = { x: number; y: number; width: number; height: number };
export type Layout = {
  width: number;
  height: number;
  nodes: Map<string, Box>;
  edges: { from: string; to: string; path: string }[];
};

const WIDTH = 168;
const HEIGHT = 34;
const MARGIN = 4;

/** Lays out the nodes; the same nodes and edges give the same places. */
export function layOut(nodes: readonly string[], edges: readonly { from: string; to: string }[]): Layout {
  const graph = new Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 10, ranksep: 40, marginx: MARGIN, marginy: MARGIN, ranker: "longest-path" });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const id of nodes) graph.setNode(id, { width: WIDTH, height: HEIGHT });
  for (const { from, to } of edges) if (graph.hasNode(from)) graph.setEdge(from, to);
  layout(graph);
  const found = new Map<string, Box>();
  for (const id of nodes) {
    const { x, y } = graph.node(id) as { x: number; y: number };
    found.set(id, { x: Math.round(x - WIDTH / 2), y: Math.round(y - HEIGHT / 2), width: WIDTH, height: HEIGHT });
  }
  const { width = 0, height = 0 } = graph.graph() as { width?: number; height?: number };
  return {
    width: Math.ceil(width),
    height: Math.ceil(height),
    nodes: found,
    edges: edges.flatMap(({ from, to }) => {
      const [start, end] = [found.get(from), found.get(to)];
      return start && end ? [{ from, to, path: curve(start, end, (graph.edge(from, to) as { points: Point[] }).points) }] : [];
    }),
  };
}

type Point = { x: number; y: number };

/** A line from the right of a box to the left of another one, level at both ends, by the points where it turns. */
function curve(start: Box, end: Box, points: readonly Point[]): string {
  const through: Point[] = [
    { x: start.x + start.width, y: start.y + start.height / 2 },
    ...points.slice(1, -1).filter((one) => one.x > start.x + start.width && one.x < end.x),
    { x: end.x, y: end.y + end.height / 2 },
  ];
  return through
    .map((point, index) => {
      const before = through[index - 1];
      if (!before) return `M${round(point.x)} ${round(point.y)}`;
      const middle = round((before.x + point.x) / 2);
      return `C${middle} ${round(before.y)} ${middle} ${round(point.y)} ${round(point.x)} ${round(point.y)}`;
    })
    .join("");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
