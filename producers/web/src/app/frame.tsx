// What surrounds every page: the header, the bar of a lost connection, dialogs, and the page of the address.
import { useEffect } from "preact/hooks";
import { cameBack, connection, loggedOut, tryAgain } from "../api/client";
import { logOut, readSession, session } from "../api/session";
import { streamState } from "../api/stream";
import { Forms } from "../components/forms";
import { Icon, type IconName } from "../components/icon";
import { attempt, Menu, MenuItem, Overlays } from "../components/overlay";
import { Empty, PageHead, Skeleton, useTitle } from "../components/parts";
import { visible } from "../text/safe";
import { iso } from "../text/time";
import { bind, KeysHelp, showKeys } from "./keys";
import { now } from "./now";
import { openPalette, Palette } from "./palette";
import { PLACES, type Place } from "./places";
import { theme, zone } from "./preferences";
import { address, href, match, navigate, type Route } from "./router";
import { routes } from "./routes";

for (const place of PLACES) {
  bind({ key: place.key, does: `Go to ${place.label.toLowerCase()}`, group: "Everywhere", run: () => navigate(href(place.path)) });
}
bind({ key: "Control+k", does: "Find a run or a page", group: "Everywhere", run: openPalette });
bind({ key: "/", does: "Go to the filter or search field", group: "Everywhere", run: () => document.querySelector<HTMLInputElement>("main input[type=search]")?.focus() });

function current(path: string): Route | undefined {
  return routes.find((one) => match(one.pattern, path));
}

function inPlace(place: Place, path: string): boolean {
  return path === place.path || [place.path, ...(place.below ?? [])].some((one) => one !== "/" && path.startsWith(`${one}/`));
}

function Header() {
  const path = address.value.path;
  const login = session.value;
  const links = PLACES.map((place) => (
    <a key={place.path} href={href(place.path)} aria-current={inPlace(place, path) ? "page" : undefined}>{place.label}</a>
  ));
  return (
    <header class="top">
      <a class="skip" href="#main">Skip to the page</a>
      {login && <div class="narrow"><Menu label="Places" icon="menu" words={false} class="quiet">{PLACES.map((place) => <MenuItem key={place.path} href={href(place.path)}>{place.label}</MenuItem>)}</Menu></div>}
      <a class="brand" href={href("/")}><svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true"><path d="M2.5 4.500h7.500M2.500 8h11M2.500 11.500h6" /></svg>Runstream</a>
      {login && <nav class="places wide-only" aria-label="Places">{links}</nav>}
      <div class="top-right">
        {login && (
          <button type="button" class="find" onClick={openPalette} aria-label="Find">
            <Icon name="search" /><span class="wide-only">Find</span><kbd class="wide-only">Ctrl K</kbd>
          </button>
        )}
        <Preferences />
        {login && <Account />}
      </div>
    </header>
  );
}

const THEMES: readonly { value: "auto" | "light" | "dark"; label: string; icon: IconName }[] = [
  { value: "auto", label: "Theme of the system", icon: "halfmoon" },
  { value: "light", label: "Light theme", icon: "sun" },
  { value: "dark", label: "Dark theme", icon: "moon" },
];

function Preferences() {
  const shown = THEMES.find((one) => one.value === theme.value);
  return (
    <Menu label="Appearance" icon={shown?.icon ?? "sun"} words={false} class="quiet">
      {THEMES.map((one) => <MenuItem key={one.value} checked={theme.value === one.value} onClick={() => (theme.value = one.value)}>{one.label}</MenuItem>)}
      <hr />
      <MenuItem checked={zone.value === "local"} onClick={() => (zone.value = "local")}>Local time ({iso(new Date(), "local").slice(-6)})</MenuItem>
      <MenuItem checked={zone.value === "utc"} onClick={() => (zone.value = "utc")}>UTC</MenuItem>
      <hr />
      <MenuItem icon="keyboard" onClick={showKeys}>Keys</MenuItem>
    </Menu>
  );
}

function Account() {
  const login = session.value;
  const name = login?.user?.username ?? "admin";
  return (
    <Menu label={`Account: ${visible(name)}`} icon="user" words={false} class="quiet">
      <p class="menu-text">{login?.user ? visible(name) : "Admin token"}{login?.admin && login.user ? " (administrator)" : ""}</p>
      <hr />
      {login?.user && <MenuItem href={href("/user")}>Your account</MenuItem>}
      {login?.admin && <MenuItem href={href("/admin")}>Users and sources</MenuItem>}
      <MenuItem onClick={() => void attempt(logOut)}>Log out</MenuItem>
    </Menu>
  );
}

/** Requests and the stream, now. */
async function tryNow(): Promise<void> {
  await tryAgain();
  if (connection.peek().state === "ok" && streamState.peek().state === "lost") cameBack.value += 1;
}

/** Says that the service does not answer, why, and when the page tries again. */
function ConnectionBar() {
  const found = connection.value;
  const stream = streamState.value;
  if (found.state === "ok" && stream.state !== "lost") return null;
  const retryAt = found.state !== "ok" ? found.retryAt : stream.state === "lost" ? stream.retryAt : 0;
  const seconds = Math.max(0, Math.ceil((retryAt - now.value) / 1000));
  const position = stream.state === "lost" && stream.resumesAt ? `; resumes at ${stream.resumesAt}` : "";
  const [title, text] =
    found.state === "ok"
      ? ["Disconnected", ""]
      : found.state === "maintenance"
        ? ["In maintenance", found.message]
        : found.state === "away"
          ? ["Not available", found.message]
          : ["Disconnected", found.message];
  return (
    <div class={`connection ${found.state === "maintenance" ? "warning" : "failed"}`} role="status">
      <Icon name={found.state === "maintenance" ? "pause" : "disconnected"} />
      <span><strong>{title}</strong>{text && `: ${visible(text)}`}{visible(position)}</span>
      <span class="push">{seconds > 0 ? `next attempt in ${seconds} s` : "trying now"}</span>
      <button type="button" class="small" onClick={() => void tryNow()}>Try now</button>
    </div>
  );
}

function NotFound() {
  useTitle("No such page");
  return (
    <>
      <PageHead title="No such page" />
      <Empty icon="question" title={`There is nothing at ${visible(address.value.path)}`}>
        <p><a href={href("/")}>All runs</a></p>
      </Empty>
    </>
  );
}

function Page() {
  const path = address.value.path;
  const route = current(path);
  const login = session.value;
  useTitle(route?.title ?? "");
  useEffect(() => {
    if (login === null && !route?.open) {
      const next = location.pathname + location.search + location.hash;
      navigate(href("/login", { next: path === "/" ? "" : next }), { replace: true });
    }
  }, [login, route, path]);
  if (route?.open) return <>{route.render(match(route.pattern, path) ?? {})}</>;
  if (!login && !(login === undefined && route?.early)) return <Skeleton />;
  if (!route) return <NotFound />;
  return <div class="page" key={route.pattern}>{route.render(match(route.pattern, path) ?? {})}</div>;
}

/** The session ended while a page is shown: the next login leads back to it. */
loggedOut.subscribe((ended) => {
  if (ended && session.peek() === undefined) session.value = null;
});

export function Frame() {
  useEffect(() => void readSession(), []);
  return (
    <>
      <Header />
      <ConnectionBar />
      <main id="main" tabIndex={-1}><Page /></main>
      <Palette />
      <KeysHelp />
      <Overlays />
      <Forms />
    </>
  );
}

