// /ui/ops: the operation of the service, for administrators; and /ui/executors.
import type { ComponentChildren } from "preact";
import { session } from "../../api/session";
import { href, type Route } from "../../app/router";
import { Empty, PageHead, Tabs } from "../../components/parts";
import { Executors } from "./executors";
import { Fsck } from "./fsck";
import { Health } from "./health";
import { Maintenance } from "./maintenance";
import { Parked } from "./parked";
import { Snapshots } from "./snapshots";
import { Storage } from "./storage";

const PARTS = [
  { name: "health", label: "Health", shown: () => <Health /> },
  { name: "maintenance", label: "Maintenance", shown: () => <Maintenance /> },
  { name: "snapshots", label: "Export and import", shown: () => <Snapshots /> },
  { name: "parked", label: "Parked commits", shown: () => <Parked /> },
  { name: "fsck", label: "Check", shown: () => <Fsck /> },
  { name: "storage", label: "Storage", shown: () => <Storage /> },
] as const;

export const opsRoutes: readonly Route[] = [
  { pattern: "/executors", title: "Executors", render: () => <OfAdministrators><Executors /></OfAdministrators> },
  { pattern: "/ops", title: "Operations", render: () => <Operations part="health" /> },
  { pattern: "/ops/:part", title: "Operations", render: ({ part = "" }) => <Operations part={part} /> },
];

function OfAdministrators({ children }: { children: ComponentChildren }) {
  return session.value?.admin ? <>{children}</> : <Empty icon="lock" title="Administrators alone see this page" />;
}

function Operations({ part }: { part: string }) {
  const found = PARTS.find((one) => one.name === part) ?? PARTS[0];
  return (
    <OfAdministrators>
      <PageHead title="Operations" />
      <Tabs tabs={PARTS.map(({ name, label }) => ({ name, label, href: href(`/ops/${name}`) }))} current={found.name} label="Parts of the operation" />
      {found.shown()}
    </OfAdministrators>
  );
}
