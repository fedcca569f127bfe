import assert from "node:assert/strict";
import { test } from "node:test";
import { PLAIN, painted, spansOf } from "../src/pages/log/ansi";
import { markerOf } from "../src/pages/log/folds";
import { LineParser } from "../src/pages/log/line-parser";

const text = (line: string): string => spansOf(line).spans.map((one) => one.text).join("");

test("a line without control characters is one span", () => {
  assert.deepEqual(spansOf("plain <b>text</b>"), { spans: [{ text: "plain <b>text</b>", style: PLAIN }], style: PLAIN });
  assert.deepEqual(spansOf("").spans, []);
});

test("colours are names of the theme, or the program's own", () => {
  const { spans, style } = spansOf("\x1b[31mred\x1b[1;92m green\x1b[38;5;208morange\x1b[48;2;1;2;300mback\x1b[0m.");
  assert.deepEqual(spans.map((one) => [one.text, one.style.color, one.style.back, one.style.bold]), [
    ["red", "c1", "", false],
    [" green", "c10", "", true],
    ["orange", "rgb(255 135 0)", "", true],
    ["back", "rgb(255 135 0)", "rgb(1 2 255)", true],
    [".", "", "", false],
  ]);
  assert.deepEqual(style, PLAIN);
});

test("a style goes on in the next line", () => {
  assert.equal(spansOf("\x1b[3mbegin").style.italic, true);
  assert.equal(spansOf("end", painted(PLAIN, "3")).spans[0]?.style.italic, true);
});

test("a carriage return and a backspace overwrite, and what is erased is gone", () => {
  assert.equal(text("10%\r50%\r100%"), "100%");
  assert.equal(text("abcdef\rxy"), "xycdef");
  assert.equal(text("abc\b\bX"), "aXc");
  assert.equal(text("long line\r\x1b[Kshort"), "short");
  assert.equal(text("gone\x1b[2K\rnew"), "new");
});

test("sequences that are no style are dropped, whole or not", () => {
  assert.equal(text("a\x1b[2Jb\x1b[10;20Hc\x1b]0;title\x07d\x1b(Be\x1bPq#0\x1b\\f"), "abcdef");
  assert.equal(text("a\x07b\x00c\x1b"), "abc");
  assert.equal(text("cut \x1b[3"), "cut ");
});

test("links lead to the web and nowhere else", () => {
  const link = (target: string): string | undefined => spansOf(`\x1b]8;;${target}\x1b\\text\x1b]8;;\x1b\\`).spans[0]?.style.link;
  assert.equal(link("https://example.com/a b"), "https://example.com/a%20b");
  for (const target of ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//example.com", "https://"]) assert.equal(link(target), "", target);
});

test("characters that turn text are escapes, in coloured lines too", () => {
  assert.equal(text("\u202eabc"), "\\u202eabc");
  assert.equal(text("\x1b[31m\u202eabc"), "\\u202eabc");
});

test("a line of a million characters is laid out at once", () => {
  const line = `\x1b[32m${"x".repeat(1_000_000)}`;
  assert.equal(text(line).length, 1_000_000);
});

test("markers of other systems fold", () => {
  assert.deepEqual(markerOf("::group::Install"), { kind: "begin", title: "Install" });
  assert.deepEqual(markerOf("::endgroup::"), { kind: "end" });
  assert.deepEqual(markerOf("section_start:1560896352:my_section[collapsed=true]\r\x1b[0KHeader"), { kind: "begin", title: "Header" });
  assert.deepEqual(markerOf("section_end:1560896353:my_section\r\x1b[0K"), { kind: "end" });
  assert.deepEqual(markerOf("--- Building"), { kind: "begin", title: "Building" });
  for (const line of ["", "text ::group::", "---", "----", "section_start", "a section_start:1:x"]) assert.equal(markerOf(line), null, line);
});

test("bytes become lines however they are cut", () => {
  const bytes = new TextEncoder().encode("eins\nzwei é\r\ndrei\n vier");
  for (let size = 1; size <= bytes.length; size += 1) {
    const parser = new LineParser(7);
    const found: string[] = [];
    let rest = "";
    for (let at = 0; at < bytes.length; at += size) {
      const { lines, open } = parser.feed(bytes.slice(at, at + size));
      found.push(...lines.map((one) => `${one.number} ${one.text}`));
      rest = open?.text ?? "";
    }
    assert.deepEqual(found, ["7 eins", "8 zwei é", "9 drei"]);
    assert.equal(rest, " vier");
    assert.equal(parser.number, 10);
  }
});
