import type { Route } from "../../app/router";
import { Flaky } from "./flaky";

export const flakyRoutes: readonly Route[] = [{ pattern: "/flaky", title: "Flaky tasks", render: () => <Flaky /> }];
