// The places that the header, the keys and the palette lead to.
export type Place = { path: string; label: string; key: string; below?: readonly string[] };

export const PLACES: readonly Place[] = [
  { path: "/", label: "Runs", key: "g r", below: ["/runs", "/groups"] },
  { path: "/p", label: "Projects", key: "g p", below: ["/p", "/g", "/orgs"] },
  { path: "/flaky", label: "Flaky", key: "g f" },
  { path: "/events", label: "Events", key: "g e" },
  { path: "/executors", label: "Executors", key: "g x" },
  { path: "/ops", label: "Operations", key: "g o" },
];
