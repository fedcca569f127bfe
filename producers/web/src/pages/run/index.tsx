import type { Route } from "../../app/router";
import { RunEvents } from "./events";
import { RunPage } from "./page";

export const runRoutes: readonly Route[] = [
  { pattern: "/runs/:id", title: "Run", render: ({ id = "" }) => <RunPage key={id} id={id} /> },
  { pattern: "/runs/:id/events", title: "Events", render: ({ id = "" }) => <RunEvents key={id} id={id} /> },
];
