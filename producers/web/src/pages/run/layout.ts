// Where the tasks of a graph are: layers from left to right, few crossings, edges as straight as there is room for.
//
// The method of Sugiyama. Each node is in the layer behind its last parent; an edge over several layers gets a bend in
// each layer between. Layers are ordered by the mean place of their neighbours, to and fro, and the order with the
// fewest crossings stays. Then each layer moves as near to its neighbours as its order and the gaps allow.

export type Box = { x: number; y: number; width: number; height: number };
export type Layout = {
  width: number;
  height: number;
  nodes: Map<string, Box>;
  edges: { from: string; to: string; path: string }[];
};
type Edge = { from: string; to: string };

const WIDTH = 168;
const HEIGHT = 34;
const MARGIN = 4;
const BETWEEN_LAYERS = 40;
const BETWEEN_NODES = 10;
/** Height of the lane that an edge has in a layer that it passes. */
const LANE = 8;
const ORDERINGS = 12;
const PLACINGS = 10;

/** A node, or a bend of an edge. */
class Vertex {
  readonly before: Vertex[] = [];
  readonly after: Vertex[] = [];
  /** Its place in its layer. */
  index = 0;
  /** The middle of its height. */
  y = 0;

  constructor(
    readonly layer: number,
    readonly bend: boolean,
  ) {}

  get height(): number {
    return this.bend ? LANE : HEIGHT;
  }
}

/** Lays out the nodes; the same nodes and edges give the same places. */
export function layOut(nodes: readonly string[], edges: readonly Edge[]): Layout {
  const known = new Set(nodes);
  const drawn = edges.filter(({ from, to }) => known.has(from) && known.has(to) && from !== to);
  const levels = levelsOf(nodes, drawn);
  const vertices = new Map(nodes.map((id) => [id, new Vertex(levels.get(id) ?? 0, false)]));
  const layers = Array.from({ length: Math.max(-1, ...levels.values()) + 1 }, (): Vertex[] => []);
  const add = (vertex: Vertex): void => void layers[vertex.layer]?.push(vertex);
  for (const vertex of vertices.values()) add(vertex);
  const bends = drawn.map(({ from, to }) => {
    const [start, end] = [vertices.get(from) as Vertex, vertices.get(to) as Vertex];
    const found = Array.from({ length: Math.max(0, end.layer - start.layer - 1) }, (_, index) => new Vertex(start.layer + index + 1, true));
    found.forEach(add);
    const chain = [start, ...found, end];
    chain.slice(1).forEach((vertex, index) => {
      vertex.before.push(chain[index] as Vertex);
      chain[index]?.after.push(vertex);
    });
    return found;
  });
  order(layers);
  place(layers);
  const top = Math.min(...layers.flat().map((one) => one.y - one.height / 2), Infinity);
  const left = (layer: number): number => MARGIN + layer * (WIDTH + BETWEEN_LAYERS);
  const y = (vertex: Vertex): number => Math.round(vertex.y - top + MARGIN);
  const boxes = new Map([...vertices].map(([id, vertex]) => [id, { x: left(vertex.layer), y: y(vertex) - HEIGHT / 2, width: WIDTH, height: HEIGHT }]));
  return {
    width: layers.length ? left(layers.length) - BETWEEN_LAYERS + MARGIN : 0,
    height: Math.max(0, ...layers.flat().map((one) => y(one) + one.height / 2)) + MARGIN,
    nodes: boxes,
    edges: drawn.map(({ from, to }, index) => ({
      from,
      to,
      path: curve(boxes.get(from) as Box, boxes.get(to) as Box, (bends[index] ?? []).flatMap((bend) => [0, WIDTH].map((across) => ({ x: left(bend.layer) + across, y: y(bend) })))),
    })),
  };
}

/** The longest way to each node from one without parents; a node of a circle keeps what it has when it is met again. */
function levelsOf(nodes: readonly string[], edges: readonly Edge[]): Map<string, number> {
  const parents = new Map<string, string[]>(nodes.map((id) => [id, []]));
  for (const { from, to } of edges) parents.get(to)?.push(from);
  const levels = new Map<string, number>();
  const level = (id: string): number => {
    const found = levels.get(id);
    if (found !== undefined) return found;
    levels.set(id, 0);
    const own = Math.max(-1, ...(parents.get(id) ?? []).map(level)) + 1;
    levels.set(id, own);
    return own;
  };
  nodes.forEach(level);
  return levels;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, one) => sum + one, 0) / values.length;
}

function number(layer: readonly Vertex[]): void {
  layer.forEach((vertex, index) => {
    vertex.index = index;
  });
}

/** Orders each layer. */
function order(layers: Vertex[][]): void {
  layers.forEach(number);
  let best = layers.map((layer) => [...layer]);
  let least = crossings(layers);
  for (let round = 0; round < ORDERINGS && least > 0; round += 1) {
    const forth = round % 2 === 0;
    for (const layer of forth ? layers.slice(1) : layers.slice(0, -1).reverse()) {
      const wanted = new Map(layer.map((one) => {
        const near = forth ? one.before : one.after;
        return [one, near.length ? mean(near.map((other) => other.index)) : one.index];
      }));
      layer.sort((a, b) => (wanted.get(a) as number) - (wanted.get(b) as number) || a.index - b.index);
      number(layer);
    }
    const count = crossings(layers);
    if (count < least) {
      least = count;
      best = layers.map((layer) => [...layer]);
    }
  }
  best.forEach((layer, index) => {
    layers[index] = layer;
    number(layer);
  });
}

/** The number of crossings of edges between neighbouring layers. */
function crossings(layers: readonly (readonly Vertex[])[]): number {
  let count = 0;
  for (const layer of layers) {
    // Ends seen so far, as a tree of sums: how many of them are behind a new one is read in the logarithm of their number.
    const size = Math.max(0, ...layer.flatMap((one) => one.after.map((other) => other.index))) + 1;
    const sums = new Array<number>(size + 1).fill(0);
    let seen = 0;
    for (const vertex of layer) {
      const ends = vertex.after.map((other) => other.index);
      for (const end of ends) {
        let upTo = 0;
        for (let at = end + 1; at > 0; at -= at & -at) upTo += sums[at] ?? 0;
        count += seen - upTo;
      }
      for (const end of ends) {
        for (let at = end + 1; at <= size; at += at & -at) sums[at] = (sums[at] ?? 0) + 1;
      }
      seen += ends.length;
    }
  }
  return count;
}

/** Gives each vertex its height, in the order of its layer. */
function place(layers: readonly (readonly Vertex[])[]): void {
  for (const layer of layers) settle(layer, () => 0);
  for (let round = 0; round < PLACINGS; round += 1) {
    const forth = round % 2 === 0;
    for (const layer of forth ? layers : layers.toReversed()) {
      settle(layer, (one) => {
        const near = round >= PLACINGS - 2 ? [...one.before, ...one.after] : forth ? one.before : one.after;
        return near.length ? mean(near.map((other) => other.y)) : one.y;
      });
    }
  }
}

/** Moves a layer as near as possible (in squares) to what its vertices want: those that push each other move as a block. */
function settle(layer: readonly Vertex[], wanted: (vertex: Vertex) => number): void {
  const offsets: number[] = [];
  let offset = 0;
  layer.forEach((vertex, index) => {
    const above = layer[index - 1];
    if (above) offset += (above.height + vertex.height) / 2 + BETWEEN_NODES;
    offsets.push(offset);
  });
  const blocks: { sum: number; size: number }[] = [];
  layer.forEach((vertex, index) => {
    let block = { sum: wanted(vertex) - (offsets[index] ?? 0), size: 1 };
    for (let last = blocks.at(-1); last && last.sum / last.size > block.sum / block.size; last = blocks.at(-1)) {
      block = { sum: last.sum + block.sum, size: last.size + block.size };
      blocks.pop();
    }
    blocks.push(block);
  });
  let index = 0;
  for (const { sum, size } of blocks) {
    for (let left = size; left > 0; left -= 1, index += 1) {
      const vertex = layer[index];
      if (vertex) vertex.y = sum / size + (offsets[index] ?? 0);
    }
  }
}

type Point = { x: number; y: number };

/** A line from the right of a box to the left of another one, level at both ends and where it passes a layer. */
function curve(start: Box, end: Box, between: readonly Point[]): string {
  const through: Point[] = [{ x: start.x + start.width, y: start.y + start.height / 2 }, ...between, { x: end.x, y: end.y + end.height / 2 }];
  return through
    .map((point, index) => {
      const before = through[index - 1];
      if (!before) return `M${point.x} ${point.y}`;
      if (before.y === point.y) return `H${point.x}`;
      const middle = (before.x + point.x) / 2;
      return `C${middle} ${before.y} ${middle} ${point.y} ${point.x} ${point.y}`;
    })
    .join("");
}
