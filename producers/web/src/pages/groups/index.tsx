import type { Route } from "../../app/router";
import { Group } from "./group";

export const groupsRoutes: readonly Route[] = [{ pattern: "/groups/:group", title: "Group", render: ({ group = "" }) => <Group key={group} group={group} /> }];
