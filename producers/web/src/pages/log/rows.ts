// The rows of a log in the document: built without a framework, since there are thousands, from text nodes only.
import { zone } from "../../app/preferences";
import { clock } from "../../text/time";
import { PLAIN, spansOf, type Style } from "./ansi";
import { markerOf } from "./folds";
import type { Line } from "./line-parser";

/** What a row inherits from the rows above it. */
export type Context = { style: Style; group: string };
export const START: Context = { style: PLAIN, group: "" };

let groups = 0;

/** The row of a line, and what the next row inherits. */
export function rowOf(line: Line, context: Context): { row: HTMLElement; context: Context } {
  const row = document.createElement("div");
  row.className = "line";
  row.id = `L${line.number + 1}`;
  const number = document.createElement("a");
  number.href = `#L${line.number + 1}`;
  number.className = "line-number";
  number.dataset.number = String(line.number + 1);
  number.setAttribute("aria-label", `Line ${line.number + 1}`);
  row.append(number);
  stamp(number, line.time);
  const marker = markerOf(line.text);
  let { group } = context;
  if (marker?.kind === "begin") {
    group = `g${(groups += 1)}`;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "line-group";
    button.dataset.folds = group;
    button.setAttribute("aria-expanded", "true");
    button.append(document.createTextNode(spansOf(marker.title).spans.map((one) => one.text).join("")));
    row.append(button);
    return { row, context: { style: PLAIN, group } };
  }
  if (context.group) row.dataset.group = context.group;
  if (marker?.kind === "end") {
    row.classList.add("line-marker");
    return { row, context: { style: PLAIN, group: "" } };
  }
  const { spans, style } = spansOf(line.text, context.style);
  const text = document.createElement("span");
  text.className = "line-text";
  for (const span of spans) text.append(span.style === PLAIN ? document.createTextNode(span.text) : styled(span.text, span.style));
  if (line.cut) {
    const cut = document.createElement("em");
    cut.textContent = " … the line goes on: download the log to read all of it";
    text.append(cut);
  }
  row.append(text);
  return { row, context: { style, group } };
}

function styled(text: string, style: Style): HTMLElement {
  const span = document.createElement(style.link ? "a" : "span");
  span.textContent = text;
  if (span instanceof HTMLAnchorElement) {
    span.href = style.link;
    span.rel = "noreferrer noopener nofollow";
    span.target = "_blank";
    span.title = style.link;
  }
  const [color, back] = style.inverse ? [style.back || "back", style.color || "text"] : [style.color, style.back];
  paint(span, "color", color);
  paint(span, "background-color", back);
  for (const name of ["bold", "dim", "italic", "underline", "strike"] as const) if (style[name]) span.classList.add(`t-${name}`);
  return span;
}

function paint(element: HTMLElement, property: "color" | "background-color", color: string): void {
  if (!color) return;
  if (color.startsWith("rgb")) element.style.setProperty(property, color);
  else element.classList.add(property === "color" ? `f-${color}` : `b-${color}`);
}

function stamp(number: HTMLElement, time: string | null): void {
  if (!time) return;
  number.dataset.at = time;
  showTime(number);
}

/** Writes the time of a row as the preferences want it. */
export function showTime(number: HTMLElement): void {
  const { at } = number.dataset;
  if (!at) return;
  const time = new Date(at);
  number.dataset.time = clock(time, time, zone.peek()) + at.slice(19, 23).padEnd(4, "0").replace(/Z.*/, "");
}

/** The row below, in the same part or the next one. */
export function rowBelow(row: Element): Element | null {
  return row.nextElementSibling ?? row.parentElement?.nextElementSibling?.firstElementChild ?? null;
}
