// The address is the state: every page is a path, and filters, lines and moments are its query and fragment.
import { computed, signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

export type Address = { path: string; query: URLSearchParams; hash: string };
export type Params = Record<string, string>;

export type Route = {
  /** `/runs/:id/log/:task/:step`, below /ui; a last `*name` takes the rest with its slashes. */
  pattern: string;
  /** The title of the tab, before " · Runstream"; a page may set another one by `useTitle`. */
  title: string;
  render: (params: Params) => ComponentChildren;
  /** Shown without a login. */
  open?: boolean;
  /** Reads its data before the login is known: it shows nothing that depends on who looks. */
  early?: boolean;
};

export const BASE = "/ui";

function read(): Address {
  const path = location.pathname.slice(BASE.length) || "/";
  return { path, query: new URLSearchParams(location.search), hash: location.hash.slice(1) };
}

export const address = signal<Address>(read());
export const query = computed(() => address.value.query);

/** An address below /ui: `href("/runs", {phase: ["running"]})`. Empty values are left out. */
export function href(path: string, values: Query = {}, hash = ""): string {
  const text = queryOf(values).toString();
  return `${BASE}${path}${text && `?${text}`}${hash && `#${hash}`}`;
}

export type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;

export function queryOf(values: Query): URLSearchParams {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (Array.isArray(value)) for (const one of value) found.append(name, one);
    else if (value === true) found.set(name, "1");
    else if (value !== undefined && value !== null && value !== false && value !== "") found.set(name, String(value));
  }
  return found;
}

/** Shows another address; `replace` leaves no step back. */
export function navigate(to: string, { replace = false }: { replace?: boolean } = {}): void {
  const from = location.pathname;
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  address.value = read();
  if (!replace && location.pathname !== from) scrollTo(0, 0);
}

/** Changes parameters of the query in place; null removes one. */
export function setQuery(values: Query, { replace = true }: { replace?: boolean } = {}): void {
  const found = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    found.delete(name);
    for (const [, one] of queryOf({ [name]: value })) found.append(name, one);
  }
  const text = found.toString();
  navigate(`${location.pathname}${text && `?${text}`}${location.hash}`, { replace });
}

addEventListener("popstate", () => {
  address.value = read();
});
addEventListener("hashchange", () => {
  address.value = read();
});
document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.("a[href]");
  if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute("download")) return;
  if (link.origin !== location.origin || !`${link.pathname}/`.startsWith(`${BASE}/`)) return;
  if (link.pathname === location.pathname && link.search === location.search && link.hash) return;
  event.preventDefault();
  navigate(link.href);
});

/** The parameters of a path that a pattern matches, decoded; null for another path. */
export function match(pattern: string, path: string): Params | null {
  const parts = pattern.split("/");
  const given = path.replace(/(.)\/+$/, "$1").split("/");
  const params: Params = {};
  for (const [index, part] of parts.entries()) {
    if (part.startsWith("*")) {
      const rest = given.slice(index).map(decoded);
      if (rest.some((one) => one === null) || rest.length === 0) return null;
      params[part.slice(1)] = rest.join("/");
      return params;
    }
    const value = given[index];
    if (value === undefined) return null;
    if (!part.startsWith(":")) {
      if (value !== part) return null;
      continue;
    }
    const text = decoded(value);
    if (!text) return null;
    params[part.slice(1)] = text;
  }
  return given.length === parts.length ? params : null;
}

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
