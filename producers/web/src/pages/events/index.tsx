import type { Route } from "../../app/router";
import { Events } from "./events";

export const eventsRoutes: readonly Route[] = [{ pattern: "/events", title: "Events", render: () => <Events /> }];
