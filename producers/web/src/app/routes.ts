// Every page and its path. A page has a folder of its own in pages/; the first pattern that matches is shown.
import type { Route } from "./router";
import { eventsRoutes } from "../pages/events";
import { flakyRoutes } from "../pages/flaky";
import { groupsRoutes } from "../pages/groups";
import { logRoutes } from "../pages/log";
import { loginRoutes } from "../pages/login";
import { opsRoutes } from "../pages/ops";
import { peopleRoutes } from "../pages/people";
import { projectRoutes } from "../pages/projects";
import { runRoutes } from "../pages/run";
import { runsRoutes } from "../pages/runs";

export const routes: readonly Route[] = [
  ...loginRoutes,
  ...runsRoutes,
  ...groupsRoutes,
  ...flakyRoutes,
  ...eventsRoutes,
  ...runRoutes,
  ...logRoutes,
  ...projectRoutes,
  ...peopleRoutes,
  ...opsRoutes,
];
