// Who looks at the page.
import { signal } from "@preact/signals";
import { ApiError, cameBack, get, loggedOut, send } from "./client";
import type { HostRedirectAnswer, LoginView } from "./types";

/** Whether this browser has the cookies of a session: one of them is for scripts. */
function hasCookies(): boolean {
  return /(?:^|; )(?:__Host-)?csrf=/.test(document.cookie);
}

/** The login; null without one, undefined before it is known. */
export const session = signal<LoginView | null | undefined>(hasCookies() ? undefined : null);

/** Reads the session of this browser. */
export async function readSession(): Promise<void> {
  if (!hasCookies()) {
    session.value = null;
    return;
  }
  try {
    session.value = await get<LoginView>("/auth/session");
    loggedOut.value = false;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) session.value = null;
  }
}

/** Logs in with the secret of a link, or with a token. */
export async function logIn(token: string): Promise<void> {
  session.value = await send<LoginView>("POST", "/auth/session", { token });
  loggedOut.value = false;
}

/** Leaves for a git host, which sends the browser back; `path` is what it is for. */
export async function goToHost(path: string, name: string): Promise<void> {
  location.href = (await send<HostRedirectAnswer>("POST", path, { remote_source_name: name })).oauth2_redirect;
}

export async function logOut(): Promise<void> {
  await send("DELETE", "/auth/session");
  session.value = null;
}

// The page was opened while the service was away.
cameBack.subscribe((times) => {
  if (times > 0 && session.peek() === undefined) void readSession();
});

loggedOut.subscribe((ended) => {
  if (ended && session.peek()) session.value = null;
});
