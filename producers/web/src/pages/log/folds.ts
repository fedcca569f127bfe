// Parts of a log that fold: between the markers that programs write for the CI systems they know.

export type Marker = { kind: "begin"; title: string } | { kind: "end" };

const SECTION = /^(?:\x1b\[0K)?section_(start|end):\d+:([\w.-]+)(?:\[[^\]]*\])?(?:\r\x1b\[0K|\r)?(.*)$/;

/** The marker that a line is; null for every other line. */
export function markerOf(line: string): Marker | null {
  if (line.startsWith("::group::")) return { kind: "begin", title: line.slice("::group::".length).trim() };
  if (line.startsWith("::endgroup::")) return { kind: "end" };
  if (line.startsWith("--- ")) return { kind: "begin", title: line.slice(4).trim() };
  if (!line.includes("section_")) return null;
  const found = SECTION.exec(line);
  if (!found) return null;
  return found[1] === "start" ? { kind: "begin", title: found[3]?.trim() || (found[2] ?? "") } : { kind: "end" };
}
