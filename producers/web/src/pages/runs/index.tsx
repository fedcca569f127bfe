import type { Route } from "../../app/router";
import { RunList } from "./list";

export const runsRoutes: readonly Route[] = [{ pattern: "/", title: "Runs", render: () => <RunList /> }];
