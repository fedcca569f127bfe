import type { Route } from "../../app/router";
import { Diff } from "./diff";
import { RunEvents } from "./events";
import { RunPage } from "./page";
import { Restart } from "./restart";

export const runRoutes: readonly Route[] = [
  { pattern: "/runs/:id", title: "Run", early: true, render: ({ id = "" }) => <RunPage key={id} id={id} /> },
  { pattern: "/runs/:id/events", title: "Events", render: ({ id = "" }) => <RunEvents key={id} id={id} /> },
  { pattern: "/runs/:id/diff", title: "Compare runs", render: ({ id = "" }) => <Diff key={id} id={id} /> },
  { pattern: "/runs/:id/restart", title: "Restart", render: ({ id = "" }) => <Restart key={id} id={id} /> },
];
