import assert from "node:assert/strict";
import { test } from "node:test";
import { pieces, visible } from "../src/text/safe";
import { bytes, clock, counted, duration, iso, relative } from "../src/text/time";
import { headline, origin } from "../src/text/run";
import { EventParser } from "../src/api/sse";

test("characters that turn or hide text are shown as escapes", () => {
  assert.equal(visible("a\u202eb\u2066c\u200bd\x1be\u{e0041}"), "a\\u202eb\\u2066c\\u200bd\\x1be\\u{e0041}");
  assert.equal(visible("שלום <script> 👩‍💻 é\n"), "שלום <script> 👩\\u200d💻 é\n");
  assert.deepEqual(pieces("\u202ex"), [{ text: "\\u202e", escape: true }, { text: "x", escape: false }]);
  assert.deepEqual(pieces(""), []);
});

test("durations have at most two units", () => {
  const found = [0, 940.5, 1_250, 9_999, 10_000, 59_999, 60_000, 184_000, 7_500_000, 273_600_000, -5].map(duration);
  assert.deepEqual(found, ["0ms", "940ms", "1.2s", "9.9s", "10s", "59s", "1m 00s", "3m 04s", "2h 05m", "3d 04h", "0ms"]);
});

test("an age is relative until it is two weeks", () => {
  const now = new Date("2026-11-29T12:00:00Z");
  const ago = (ms: number): string => relative(new Date(now.getTime() - ms), now, "utc");
  assert.deepEqual([0, 12_000, 200_000, 7_300_000, 180_000_000, -30_000].map(ago), ["just now", "12 s ago", "3 min ago", "2 h ago", "2 d ago", "in 30 s"]);
  assert.equal(ago(15 * 86_400_000), "2026-11-14");
});

test("a time has its zone, and its date on another day", () => {
  const time = new Date("2026-11-29T23:05:09.120Z");
  assert.equal(iso(time, "utc"), "2026-11-29T23:05:09.120Z");
  assert.equal(new Date(iso(time, "local")).getTime(), time.getTime());
  assert.match(iso(time, "local"), /[+-]\d\d:\d\d$/);
  assert.equal(clock(time, time, "utc"), "23:05:09");
  assert.equal(clock(time, new Date("2026-12-01T00:00:00Z"), "utc"), "2026-11-29 23:05");
});

test("amounts are read at a glance", () => {
  assert.deepEqual([0, 1023, 1536, 200 * 1024, 5 * 1024 ** 3].map(bytes), ["0 B", "1023 B", "1.5 KiB", "200 KiB", "5.0 GiB"]);
  assert.deepEqual([counted(1, "run"), counted(1234, "run"), counted(2, "retry", "retries")], ["1 run", "1,234 runs", "2 retries"]);
});

test("the origin of a run is its annotations', else its group's", () => {
  const of = (group: string, annotations = {}): unknown => origin({ group, annotations });
  assert.deepEqual(of("/project/x/branch/a%2Fb"), { kind: "branch", name: "a/b" });
  assert.deepEqual(of("/project/x/branch/main", { tag: "v1" }), { kind: "tag", name: "v1" });
  assert.deepEqual(of("/project/x/pr/12"), { kind: "pullrequest", name: "#12" });
  assert.equal(of("/project/x"), null);
  assert.deepEqual(of("/project/x/branch/%zz"), { kind: "branch", name: "%zz" });
  assert.equal(headline("fix it\n\nbody"), "fix it");
});

test("events are whole however the text is cut", () => {
  const text = ": hello\n\nid: 1:2,0\nevent: commit\ndata: {\"a\":\ndata: 1}\n\nid: 1:3,0\r\ndata:x\r\n\r\n: nothing new\n\ndata: rest";
  const expected = [
    { id: "1:2,0", event: "commit", data: '{"a":\n1}' },
    { id: "1:3,0", event: "message", data: "x" },
  ];
  for (let size = 1; size <= text.length; size += 1) {
    const parser = new EventParser();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...parser.feed(text.slice(at, at + size)));
    assert.deepEqual(found, expected, `in pieces of ${size}`);
    assert.equal(parser.id, "1:3,0");
  }
});
