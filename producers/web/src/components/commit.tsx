// What pages show of a commit of the log: its place, and its events.
import type { ComponentChildren } from "preact";
import { visible } from "../text/safe";
import { Actor, CopyButton, Mono, Text } from "./text";

type Event = { type: string; data: unknown };
type Commit = { position: string; aggregate: string; version: number; commit: string; actor: string; events: readonly Event[] };

/** The place of a commit, and further facts. */
export function CommitFacts({ commit, children }: { commit: Commit; children?: ComponentChildren }) {
  return (
    <dl class="facts">
      <div><dt>Position</dt><dd><Mono value={commit.position} /> <CopyButton value={commit.position} label="Copy the position" /></dd></div>
      <div><dt>Aggregate</dt><dd><Mono value={commit.aggregate} />, version {commit.version}</dd></div>
      <div><dt>Commit</dt><dd><Mono value={commit.commit} /></dd></div>
      <div><dt>Actor</dt><dd><Actor value={commit.actor} /></dd></div>
      {children}
    </dl>
  );
}

/** The events of a commit as they are stored. */
export function CommitEvents({ events }: { events: readonly Event[] }) {
  return <>{events.map((one, index) => <div key={index}><h3>{visible(one.type)}</h3><pre tabIndex={0}><Text value={JSON.stringify(one.data, null, 2)} /></pre></div>)}</>;
}
