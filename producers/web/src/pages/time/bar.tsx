// The time bar: every commit of a run at its true time; the right edge is live.
import { useEffect, useRef, useState } from "preact/hooks";
import type { RunCommit } from "../../api/types";
import { useKey } from "../../app/keys";
import { now } from "../../app/now";
import { zone } from "../../app/preferences";
import { address, href } from "../../app/router";
import { Icon } from "../../components/icon";
import { Dialog, toast } from "../../components/overlay";
import { iso, counted, duration } from "../../text/time";
import type { Watch } from "../run/watch";
import { timeScale, type TimeScale } from "../run/time-scale";
import { markOf, nearest, words } from "./marks";

/** The number of places of the slider. */
const UNITS = 10_000;
/** While playing, the time from one commit to the next is as long as it was, within these bounds. */
const PLAY_MS = { least: 80, most: 900 };

export function TimeBar({ watch }: { watch: Watch }) {
  const count = watch.count.value;
  const moment = watch.moment.value;
  const [playing, setPlaying] = useState(false);
  const [asking, setAsking] = useState(false);
  const commits = watch.replay.commits;
  const shown = moment?.number ?? count;
  const to = (number: number): void => watch.show(number >= count ? null : Math.max(1, number));
  usePlay(watch, playing, () => setPlaying(false));
  useKey("[", "One commit back", () => to(shown - 1), "Time");
  useKey("]", "One commit on", () => to(shown + 1), "Time");
  useKey("l", "Show the run as it is now", () => watch.show(null), "Time");
  useKey("t", "Show a time or position", () => setAsking(true), "Time");
  if (!count) return null;
  const ended = watch.latest.value?.run.archived;
  const scale = scaleOf(commits);
  return (
    <section class={moment ? "time-bar past" : "time-bar"} aria-label="Time">
      <div class="time-buttons">
        <button type="button" class="quiet" aria-label={playing ? "Stop playing" : "Play the run"} title={playing ? "Stop playing" : "Play the run"} onClick={() => {
          if (!playing && !moment) watch.show(1);
          setPlaying(!playing);
        }}><Icon name={playing ? "pause" : "play"} /></button>
        <button type="button" class="quiet" aria-label="One commit back" title="One commit back ([)" disabled={shown <= 1} onClick={() => to(shown - 1)}><Icon name="left" /></button>
        <button type="button" class="quiet" aria-label="One commit on" title="One commit on (])" disabled={!moment} onClick={() => to(shown + 1)}><Icon name="right" /></button>
      </div>
      <div class="time-line">
        <Slider commits={commits} shown={shown} scale={scale} live={!moment} to={to} />
        <Marks commits={commits} scale={scale} shown={shown} />
      </div>
      <div class="time-words">
        {moment ? (
          <>
            <span class="past-words">{`as of ${iso(new Date(moment.time), zone.value)} (${moment.commit.position}), ${duration(Date.parse(moment.time) - Date.parse(commits[0]?.time ?? ""))} after creation`}</span>
            <span class="faint">{words(moment.commit)}</span>
            <a href={href(`${address.value.path}/diff`, { vs: moment.commit.position })}>Compare with now</a>
          </>
        ) : (
          <span class="faint">{ended ? counted(count, "commit") : `live, ${counted(count, "commit")}`}</span>
        )}
        <span class="push" />
        <button type="button" class="quiet small" onClick={() => setAsking(true)}>Go to a time…</button>
        {moment && <button type="button" class="small" onClick={() => watch.show(null)}>Back to {ended ? "the end" : "live"}</button>}
      </div>
      {asking && <AskMoment watch={watch} onClose={() => setAsking(false)} />}
    </section>
  );
}

/** Long waits, as for an approval, are folded: the commits between stay apart. */
function scaleOf(commits: readonly RunCommit[]): TimeScale {
  const times = commits.map((one) => Date.parse(one.time));
  const first = times[0] ?? now.peek();
  const last = Math.max(first + 1, times.at(-1) ?? first);
  const busy = times.map((time) => ({ from: time - 2000, to: time + 2000 }));
  return timeScale(first, last, busy, true);
}

function Slider({ commits, shown, scale, live, to }: { commits: readonly RunCommit[]; shown: number; scale: TimeScale; live: boolean; to: (number: number) => void }) {
  const commit = commits[shown - 1];
  const value = live ? UNITS : Math.round(UNITS * scale.place(Date.parse(commit?.time ?? "")));
  const onKey = (event: KeyboardEvent): void => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    to(Math.min(Math.max(shown + step, 1), commits.length));
  };
  return (
    <input
      type="range"
      min={0}
      max={UNITS}
      value={value}
      aria-label="Moment of the run"
      aria-valuetext={live ? `now, after ${counted(commits.length, "commit")}` : `commit ${shown} of ${commits.length}, ${commit?.time ?? ""}`}
      onKeyDown={onKey}
      onInput={(event) => {
        const wanted = Number(event.currentTarget.value) / UNITS;
        to(wanted >= 0.999 ? commits.length : nearest(commits, scale, wanted));
      }}
    />
  );
}

function Marks({ commits, scale, shown }: { commits: readonly RunCommit[]; scale: TimeScale; shown: number }) {
  const places = new Map<number, { mark: string; past: boolean }>();
  for (const commit of commits) {
    const mark = markOf(commit);
    const place = Math.round(1000 * scale.place(Date.parse(commit.time)));
    // Of commits at the same place, the one that says most is drawn.
    if (mark || !places.has(place)) places.set(place, { mark: mark ?? places.get(place)?.mark ?? "", past: commit.number <= shown });
  }
  return (
    <svg class="marks" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true">
      {scale.folds.map((one) => <rect key={one.from} class="fold" x={1000 * one.at} width={1000 * one.width} y={0} height={12}><title>{`${duration(one.to - one.from)} without a commit`}</title></rect>)}
      {[...places].map(([place, { mark, past }]) => <path key={place} class={`${mark} ${past ? "" : "ahead"}`} d={mark ? `M${place} 0V12` : `M${place} 3V9`} />)}
    </svg>
  );
}

function usePlay(watch: Watch, playing: boolean, done: () => void): void {
  const end = useRef(done);
  end.current = done;
  const moment = watch.moment.value;
  useEffect(() => {
    if (!playing) return;
    if (!moment) {
      end.current();
      return;
    }
    const next = watch.replay.commits[moment.number];
    const gap = next ? Date.parse(next.time) - Date.parse(moment.commit.time) : 0;
    const timer = setTimeout(() => watch.show(next && next.number < watch.replay.count ? next.number : null), Math.min(Math.max(gap, PLAY_MS.least), PLAY_MS.most));
    return () => clearTimeout(timer);
  }, [playing, moment?.number]);
}

function AskMoment({ watch, onClose }: { watch: Watch; onClose: () => void }) {
  const [text, setText] = useState("");
  return (
    <Dialog title="Go to a time" onClose={onClose}>
      <form onSubmit={(event) => {
        event.preventDefault();
        const number = watch.replay.numberAt(text.trim());
        if (!number) {
          toast(number === 0 ? "The run did not exist yet" : "That is neither a time nor a position", { hint: "such as 2026-11-29T12:03:17Z, or 1/2/817", failed: true });
          return;
        }
        watch.show(number);
        onClose();
      }}>
        <label class="field">
          <span>Time or position in the log</span>
          <input value={text} autoFocus autocomplete="off" placeholder="2026-11-29T12:03:17Z or 1/2/817" onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <footer><button type="button" onClick={onClose}>Cancel</button><button type="submit" class="primary" disabled={!text.trim()}>Show</button></footer>
      </form>
    </Dialog>
  );
}
