// A line of a log as a terminal shows it: colours and weights, what a carriage return or a backspace overwrites, links.
//
// Every other control sequence is dropped. A log is hostile text: what comes out is text with names of styles, never
// markup, and links lead to http and https only.
import { visible } from "../../text/safe";

export type Style = {
  /** `c1` to `c15` of the theme, `rgb(…)` of a program's own choice, empty: the text's own. */
  color: string;
  back: string;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
  strike: boolean;
  inverse: boolean;
  link: string;
};
export type Span = { text: string; style: Style };

export const PLAIN: Style = { color: "", back: "", bold: false, dim: false, italic: false, underline: false, strike: false, inverse: false, link: "" };

/** Cells beyond this are not laid out one by one: such a line is no progress bar. */
const MAX_CELLS = 16_384;
const MAX_LINK = 2048;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/;
// An operating system command, a control sequence (also one that the line's end cuts), a string sequence, another escape.
const SEQUENCE = /\x1b\](?:[^\x07\x1b]*)(?:\x07|\x1b\\)|(?:\x1b\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;

type Cell = { text: string; style: Style };

/** The spans of a line, and the style in which the next line begins. */
export function spansOf(line: string, style: Style = PLAIN): { spans: Span[]; style: Style } {
  if (!CONTROL.test(line)) return { spans: line ? [{ text: visible(line), style }] : [], style };
  const cells: Cell[] = [];
  let column = 0;
  let now = style;
  let from = 0;
  const put = (text: string): void => {
    if (column >= MAX_CELLS) {
      cells.push({ text, style: now });
      return;
    }
    for (const character of text) {
      while (cells.length < column) cells.push({ text: " ", style: PLAIN });
      cells[column] = { text: character, style: now };
      column += 1;
    }
  };
  for (const found of line.matchAll(SEQUENCE)) {
    if (found.index > from) put(line.slice(from, found.index));
    from = found.index + found[0].length;
    const sequence = found[0];
    if (sequence === "\r") column = 0;
    else if (sequence === "\b") column = Math.max(0, column - 1);
    else if (sequence.startsWith("\x1b]8;")) now = { ...now, link: linkOf(sequence) };
    else if (/^(?:\x1b\[|\x9b)[\d;:]*m$/.test(sequence)) now = painted(now, sequence.replace(/^(?:\x1b\[|\x9b)/, "").slice(0, -1));
    else if (/^(?:\x1b\[|\x9b)\d*K$/.test(sequence)) erase(cells, column, Number(/\d+/.exec(sequence)?.[0] ?? 0));
    else if (/^(?:\x1b\[|\x9b)\d*G$/.test(sequence)) column = Math.min(Math.max(Number(/\d+/.exec(sequence)?.[0] ?? 1) - 1, 0), MAX_CELLS);
  }
  if (from < line.length) put(line.slice(from));
  return { spans: joined(cells), style: now };
}

function erase(cells: Cell[], column: number, which: number): void {
  if (which === 0) cells.length = Math.min(cells.length, column);
  else if (which === 2) cells.length = 0;
  else for (let at = 0; at <= column && at < cells.length; at += 1) cells[at] = { text: " ", style: PLAIN };
}

function joined(cells: readonly Cell[]): Span[] {
  const spans: Span[] = [];
  let last: { text: string; style: Style } | null = null;
  for (const { text, style } of cells) {
    if (last && last.style === style) last.text += text;
    else spans.push((last = { text, style }));
  }
  for (const span of spans) (span as { text: string }).text = visible(span.text);
  return spans;
}

/** The target of a hyperlink sequence; empty for its end, and for what leads to no web page. */
function linkOf(sequence: string): string {
  const target = sequence.replace(/^\x1b\]8;[^;]*;/, "").replace(/(?:\x07|\x1b\\)$/, "");
  if (!/^https?:\/\//i.test(target) || target.length > MAX_LINK) return "";
  try {
    return new URL(target).href;
  } catch {
    return "";
  }
}

type Flag = "bold" | "dim" | "italic" | "underline" | "inverse" | "strike";
/** Codes that begin a property; each ends it with 20 more. */
const FLAGS: Record<number, Flag> = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };

/** The style after the parameters of a "select graphic rendition" sequence. */
export function painted(style: Style, parameters: string): Style {
  const codes = parameters.split(/[;:]/).map((one) => (one === "" ? 0 : Number(one)));
  let now = { ...style };
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] ?? 0;
    if (code === 0) now = { ...PLAIN, link: now.link };
    else if (code === 22) now.bold = now.dim = false;
    else if (FLAGS[code]) now[FLAGS[code]] = true;
    else if (FLAGS[code - 20]) now[FLAGS[code - 20] as Flag] = false;
    else if (code >= 30 && code <= 37) now.color = `c${code - 30}`;
    else if (code >= 90 && code <= 97) now.color = `c${code - 82}`;
    else if (code === 39) now.color = "";
    else if (code >= 40 && code <= 47) now.back = `c${code - 40}`;
    else if (code >= 100 && code <= 107) now.back = `c${code - 92}`;
    else if (code === 49) now.back = "";
    else if (code === 38 || code === 48) {
      const [color, used] = extended(codes.slice(at + 1));
      if (color !== null) now[code === 38 ? "color" : "back"] = color;
      at += used;
    }
  }
  return now;
}

/** A colour of 256 or of 24 bits, and how many parameters it took. */
function extended(codes: readonly number[]): [string | null, number] {
  const byte = (value: number | undefined): number => Math.min(Math.max(Math.trunc(value ?? 0) || 0, 0), 255);
  if (codes[0] === 2) return [`rgb(${byte(codes[1])} ${byte(codes[2])} ${byte(codes[3])})`, 4];
  if (codes[0] !== 5) return [null, 1];
  const number = byte(codes[1]);
  if (number < 16) return [`c${number}`, 2];
  if (number >= 232) {
    const grey = 8 + 10 * (number - 232);
    return [`rgb(${grey} ${grey} ${grey})`, 2];
  }
  const level = (value: number): number => (value === 0 ? 0 : 55 + 40 * value);
  const cube = number - 16;
  return [`rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`, 2];
}
