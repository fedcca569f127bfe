// /ui/login: by a link that works once, whose secret is the fragment of the address, by a git host, or by a token.
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../../api/client";
import { useGet } from "../../api/resource";
import { goToHost, logIn, session } from "../../api/session";
import type { RemoteSourceView } from "../../api/types";
import { address, BASE, href, navigate, type Route } from "../../app/router";
import { Failure, Skeleton } from "../../components/parts";
import { Code, Text } from "../../components/text";

export const loginRoutes: readonly Route[] = [{ pattern: "/login", title: "Log in", open: true, render: () => <Login /> }];

/** The page to show after the login: a path of this page and of no other site. */
export function nextOf(text: string | null, origin = location.origin): string {
  if (!text) return href("/");
  try {
    const found = new URL(text, origin);
    const inside = found.origin === origin && found.pathname.startsWith(`${BASE}/`) && found.pathname !== `${BASE}/login`;
    return inside ? found.pathname + found.search + found.hash : href("/");
  } catch {
    return href("/");
  }
}

function Login() {
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<ApiError | null>(null);
  const sources = useGet<RemoteSourceView[]>("/remotesources");
  const enter = async (secret: string, host = ""): Promise<void> => {
    setBusy(true);
    setFailure(null);
    try {
      if (host) return await goToHost("/auth/login", host);
      await logIn(secret);
      navigate(nextOf(address.peek().query.get("next")), { replace: true });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setFailure(error);
    } finally {
      setBusy(false);
    }
  };
  const secret = address.value.hash;
  useEffect(() => {
    if (!secret) return;
    // Not in the history of this browser, and not in the address while it is read by others.
    navigate(href("/login", { next: address.peek().query.get("next") }), { replace: true });
    void enter(decodeURIComponent(secret));
  }, [secret]);
  if (busy && !token) return <div class="login"><Skeleton lines={3} /></div>;
  return (
    <div class="login">
      <h1>Log in to Runstream</h1>
      {failure && <Failure error={failure} />}
      {session.value && <p>You are logged in as {session.value.user?.username ?? "the administrator"}. <a href={href("/")}>Show the runs</a></p>}
      {sources.data.value?.map((one) => one.login_enabled && one.auth_type === "oauth2" && (
        <button key={one.id} type="button" disabled={busy} onClick={() => void enter("", one.name)}>Log in with <Text value={one.name} /></button>
      ))}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void enter(token.trim());
        }}
      >
        <label class="field">
          <span>Token</span>
          <input type="password" name="token" required autoFocus autocomplete="current-password" value={token} onInput={(event) => setToken(event.currentTarget.value)} />
        </label>
        <button type="submit" class="primary" disabled={busy || !token.trim()}>Log in</button>
      </form>
      <h2>Or with a link</h2>
      <p>This command prints a link that works once, for five minutes. For another user, an administrator prints one by <code>runstream user login-link</code>.</p>
      <Code value="runstream page" />
    </div>
  );
}
