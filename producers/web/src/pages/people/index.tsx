// Organizations with their members, the account of who looks at the page, and what administrators see of users.
import { segment, send } from "../../api/client";
import { useGet } from "../../api/resource";
import { goToHost, readSession, session } from "../../api/session";
import type { InvitationView, LoginLink, MembersView, MembershipView, OrganizationView, PrivateUserView, RemoteSourceView, SessionView, TokenEntry, TokenView, UserView } from "../../api/types";
import { href, navigate, query, type Route } from "../../app/router";
import { ask } from "../../components/forms";
import { Icon } from "../../components/icon";
import { askDelete, attempt } from "../../components/overlay";
import { Empty, Loaded, Note, PageHead, Tabs } from "../../components/parts";
import { Code, Cut, Text } from "../../components/text";
import { Ago } from "../../components/time";
import { Audit, groupHref } from "../projects";

export const peopleRoutes: readonly Route[] = [
  { pattern: "/orgs/:name", title: "Organization", render: ({ name = "" }) => <Organization key={name} name={name} /> },
  { pattern: "/user", title: "Your account", render: () => <Account /> },
  { pattern: "/admin", title: "Users and sources", render: () => <Admin /> },
];

const ROLES = [{ value: "member", label: "member" }, { value: "owner", label: "owner" }];

function Organization({ name }: { name: string }) {
  const path = `/orgs/${segment(name)}`;
  const found = useGet<OrganizationView>(path);
  return (
    <Loaded of={found}>
      {(organization) => (
        <>
          <PageHead
            title={<Text value={organization.name} />}
            actions={
              <>
                <a class="button" href={groupHref(`org/${organization.name}`)}><Icon name="branch" />Projects</a>
                <button type="button" onClick={() => ask({ title: "Change this organization", action: "Save", fields: [{ name: "visibility", label: "Visibility", kind: "choice", value: organization.visibility, options: [{ value: "public", label: "Public" }, { value: "private", label: "Private" }] }], run: async (values) => {
                  await send("PUT", path, values);
                  found.reload();
                } })}>Change…</button>
                <button type="button" onClick={() => askDelete({ what: "organization", text: <>Its groups, projects, secrets and variables are deleted with it; runs stay.</>, path: path, word: organization.name, then: () => navigate(href("/p")) })}><Icon name="trash" />Delete…</button>
              </>
            }
          >
            <span class="faint">{organization.visibility} organization</span>
          </PageHead>
          <Members path={path} />
        </>
      )}
    </Loaded>
  );
}

function Members({ path }: { path: string }) {
  const members = useGet<MembersView>(`${path}/members`, { limit: 100 });
  const me = session.value?.user?.username;
  const owner = members.data.value?.members.some(({ user, role }) => user.username === me && role === "owner") ?? false;
  const set = (user: UserView, role: string): Promise<void> =>
    attempt(async () => {
      await send("PUT", `${path}/members/${segment(user.username)}`, { role });
      members.reload();
    });
  return (
    <>
    <section class="block">
      <p class="tools">
        <strong>Members</strong>
        {session.value?.admin && <button type="button" class="push" onClick={() => ask({ title: "Add a member", action: "Add member", fields: [{ name: "user", label: "User" }, { name: "role", label: "Role", kind: "choice", options: ROLES }], run: async ({ user = "", role = "" }) => {
          await send("PUT", `${path}/members/${segment(user)}`, { role });
          members.reload();
        } })}><Icon name="plus" />Add member</button>}
      </p>
      <Loaded of={members} lines={3}>
        {({ members: found }) => (
          <table>
            <thead><tr><th>User</th><th>Role</th><td /></tr></thead>
            <tbody>
              {found.map(({ user, role }) => (
                <tr key={user.id}>
                  <td class="grow"><Text value={user.username} /></td>
                  <td><select aria-label={`Role of ${user.username}`} value={role} onChange={(event) => void set(user, event.currentTarget.value)}>{ROLES.map((one) => <option key={one.value}>{one.value}</option>)}</select></td>
                  <td class="number"><button type="button" class="small" onClick={() => askDelete({ what: "member", verb: "Remove", text: <><Text value={user.username} /> no longer sees private projects of the organization.</>, path: `${path}/members/${segment(user.username)}`, then: members.reload })}>Remove…</button></td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Loaded>
    </section>
    {owner && <Invitations path={path} />}
    </>
  );
}

function Invitations({ path }: { path: string }) {
  const invitations = useGet<InvitationView[]>(`${path}/invitations`);
  return (
    <section class="block">
      <p class="tools"><strong>Invitations</strong><button type="button" class="push" onClick={() => ask({ title: "Invite a user", action: "Invite", fields: [{ name: "user_ref", label: "User" }, { name: "role", label: "Role", kind: "choice", options: ROLES }], run: async (values) => {
        await send("POST", `${path}/invitations`, values);
        invitations.reload();
      } })}><Icon name="plus" />Invite</button></p>
      <Loaded of={invitations} lines={2}>
        {(found) => found.length === 0 ? <p class="faint">No invitation waits for an answer.</p> : (
          <ul class="entries">{found.map((one) => <li key={one.id}><Icon name="user" /><Text value={one.user_ref} /><button type="button" class="small push" onClick={() => void attempt(async () => {
            await send("DELETE", `${path}/invitations/${segment(one.user_ref)}`);
            invitations.reload();
          }, "Withdrawn")}>Withdraw</button></li>)}</ul>
        )}
      </Loaded>
    </section>
  );
}

function Account() {
  const user = session.value?.user;
  const tab = query.value.get("tab") ?? "tokens";
  if (!user) return <Note icon="info">You are logged in by the admin token, which belongs to no user. <a href={href("/admin")}>Users</a></Note>;
  const tabs = [["tokens", "Tokens"], ["sessions", "Sessions"], ["organizations", "Organizations"], ["hosts", "Git hosts"], ["audit", "Audit"]].map(([name = "", label = ""]) => ({ name, label, href: href("/user", { tab: name === "tokens" ? "" : name }) }));
  return (
    <>
      <PageHead title={<Text value={user.username} />} actions={<a class="button" href={groupHref(`user/${user.username}`)}><Icon name="branch" />Your projects</a>} />
      <Tabs tabs={tabs} current={tab} label="Parts of the account" />
      {tab === "sessions" ? <Sessions /> : tab === "organizations" ? <Memberships /> : tab === "hosts" ? <Hosts name={user.username} /> : tab === "audit" ? <Audit user={user.username} /> : <Tokens name={user.username} />}
    </>
  );
}

function Tokens({ name }: { name: string }) {
  const path = `/users/${segment(name)}/tokens`;
  const tokens = useGet<TokenEntry[]>(path);
  return (
    <>
      <p class="tools"><span class="faint">A token acts as you, in scripts and at the command line.</span><button type="button" class="push" onClick={() => ask({
        title: "New token",
        action: "Create token",
        fields: [
          { name: "token_name", label: "Name" },
          { name: "scope", label: "Scope", kind: "choice", options: [{ value: "read", label: "Read" }, { value: "run", label: "Run: read, and act on runs" }, { value: "admin", label: "Everything you may do" }] },
          { name: "expires", label: "Valid until", kind: "date", optional: true },
        ],
        run: async ({ token_name: given, scope, expires }) => {
          const made = await send<TokenView>("POST", path, { token_name: given, scope, ...(expires && { expires_at: `${expires}T23:59:59Z` }) });
          tokens.reload();
          return <><p>This is the token. It is not shown again:</p><Code value={made.token} /></>;
        },
      })}><Icon name="plus" />New token</button></p>
      <Loaded of={tokens}>
        {(found) => found.length === 0 ? <Empty icon="key" title="You have no tokens" /> : (
          <table>
            <thead><tr><th>Name</th><th>Scope</th><th class="number">Created</th><th class="number">Valid until</th><td /></tr></thead>
            <tbody>{found.map((one) => <tr key={one.name}><td class="grow"><Text value={one.name} /></td><td>{one.scope}</td><td class="number"><Ago at={one.created_at} /></td><td class="number">{one.expires_at ? <Ago at={one.expires_at} /> : "no limit"}</td><td class="number"><button type="button" class="small" onClick={() => askDelete({ what: "token", verb: "Revoke", text: <>What uses <Text value={one.name} /> is refused from now on.</>, path: `${path}/${segment(one.name)}`, then: tokens.reload })}>Revoke…</button></td></tr>)}</tbody>
          </table>
        )}
      </Loaded>
    </>
  );
}

function Hosts({ name }: { name: string }) {
  const path = `/users/${segment(name)}/linkedaccounts`;
  const user = useGet<PrivateUserView>("/user");
  const sources = useGet<RemoteSourceView[]>("/remotesources", { limit: 100 });
  return (
    <Loaded of={sources}>
      {(found) => found.length === 0 ? <Empty icon="link" title="There are no remote sources" /> : (
        <table>
          <thead><tr><th>Name</th><th>Your account</th><td /></tr></thead>
          <tbody>{found.map((one) => {
            const account = user.data.value?.linked_accounts.find((each) => each.remote_source_id === one.id);
            return (
              <tr key={one.id}>
                <td class="grow"><Text value={one.name} /></td>
                <td>{account && <Text value={account.remote_user_name} />}</td>
                <td class="number">{account
                  ? <button type="button" class="small" onClick={() => askDelete({ what: "link", verb: "Unlink", text: <>You no longer log in through <Text value={one.name} />.</>, path: `${path}/${segment(account.id)}`, then: user.reload })}>Unlink…</button>
                  : one.auth_type === "oauth2" && <button type="button" class="small" onClick={() => attempt(() => goToHost(path, one.name))}>Link</button>}</td>
              </tr>
            );
          })}</tbody>
        </table>
      )}
    </Loaded>
  );
}

function Sessions() {
  const sessions = useGet<SessionView[]>("/auth/sessions");
  return (
    <Loaded of={sessions}>
      {(found) => (
        <table>
          <thead><tr><th>Browser</th><th class="number">Since</th><th class="number">Until</th><td /></tr></thead>
          <tbody>{found.map((one) => <tr key={one.id}><td class="grow"><Cut value={one.user_agent || "unknown"} /></td><td class="number"><Ago at={one.created_at} /></td><td class="number"><Ago at={one.expires_at} /></td><td class="number">{one.current ? "this one" : <button type="button" class="small" onClick={() => void attempt(async () => {
            await send("DELETE", `/auth/sessions/${segment(one.id)}`);
            sessions.reload();
          }, "Logged out there")}>Log out</button>}</td></tr>)}</tbody>
        </table>
      )}
    </Loaded>
  );
}

function Memberships() {
  const mine = useGet<MembershipView[]>("/user/orgs");
  const invitations = useGet<InvitationView[]>("/user/org_invitations");
  const answer = (one: InvitationView, action: "accept" | "reject"): Promise<void> =>
    attempt(async () => {
      await send("PUT", `/user/org_invitations/${segment(one.organization_name)}/actions`, { action_type: action });
      mine.reload();
      invitations.reload();
    });
  return (
    <>
      <Loaded of={invitations} lines={1}>{(found) => <>{found.map((one) => <Note key={one.id} icon="user" tone="running"><Text value={one.organization_name} /> invites you. <button type="button" class="small primary" onClick={() => void answer(one, "accept")}>Accept</button> <button type="button" class="small" onClick={() => void answer(one, "reject")}>Reject</button></Note>)}</>}</Loaded>
      <Loaded of={mine} lines={2}>
        {(found) => found.length === 0 ? <Empty title="You are in no organization" /> : <ul class="entries">{found.map(({ Organization: one, Role: role }) => <li key={one.id}><Icon name="user" /><a href={href(`/orgs/${segment(one.name)}`)}><Text value={one.name} /></a><span class="faint">{role}</span></li>)}</ul>}
      </Loaded>
    </>
  );
}

function Admin() {
  const tab = query.value.get("tab") ?? "users";
  if (!session.value?.admin) return <Empty icon="lock" title="Administrators alone see this page" />;
  const tabs = [["users", "Users"], ["sources", "Remote sources"], ["audit", "Audit"]].map(([name = "", label = ""]) => ({ name, label, href: href("/admin", { tab: name === "users" ? "" : name }) }));
  return (
    <>
      <PageHead title="Users and sources" />
      <Tabs tabs={tabs} current={tab} label="Parts of the administration" />
      {tab === "sources" ? <Sources /> : tab === "audit" ? <Audit /> : <Users />}
    </>
  );
}

function Users() {
  const users = useGet<PrivateUserView[]>("/users", { limit: 100 });
  return (
    <>
      <p class="tools"><button type="button" class="push" onClick={() => ask({ title: "New user", action: "Create user", fields: [{ name: "username", label: "Name" }], run: async (values) => {
        await send("POST", "/users", values);
        users.reload();
      } })}><Icon name="plus" />New user</button></p>
      <Loaded of={users}>
        {(found) => found.length === 0 ? <Empty icon="user" title="There are no users yet" /> : (
          <table>
            <thead><tr><th>User</th><th>Administrator</th><td /></tr></thead>
            <tbody>
              {found.map((one) => (
                <tr key={one.id}>
                  <td class="grow"><a href={groupHref(`user/${one.username}`)}><Text value={one.username} /></a></td>
                  <td><label class="check"><input type="checkbox" checked={one.admin} onChange={(event) => void attempt(async () => {
                    await send("PUT", `/users/${segment(one.username)}`, { admin: event.currentTarget.checked });
                    await readSession();
                    users.reload();
                  })} /><span class="unseen">{one.username} is an administrator</span></label></td>
                  <td class="number">
                    <button type="button" class="small" onClick={() => ask({ title: "Login link", action: "Make link", text: <p>A link that logs in as <Text value={one.username} />, once, within five minutes.</p>, fields: [], run: async () => {
                      const link = await send<LoginLink>("POST", "/auth/loginlink", { username: one.username });
                      return <><p>Give this link to <Text value={one.username} />:</p><Code value={link.url} /></>;
                    } })}>Login link…</button>{" "}
                    <button type="button" class="small" aria-label={`Delete ${one.username}`} onClick={() => askDelete({ what: "user", text: <>Projects, secrets and tokens of <Text value={one.username} /> are deleted too; runs stay.</>, path: `/users/${segment(one.username)}`, word: one.username, then: users.reload })}><Icon name="trash" /></button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Loaded>
    </>
  );
}

function Sources() {
  const sources = useGet<RemoteSourceView[]>("/remotesources", { limit: 100 });
  return (
    <Loaded of={sources}>
      {(found) => found.length === 0 ? <Empty icon="link" title="There are no remote sources"><p class="faint">A remote source is a host of git repositories. Projects can also name any URL.</p></Empty> : (
        <table>
          <thead><tr><th>Name</th><th>Logs in by</th><th>Login</th><th>Registration</th></tr></thead>
          <tbody>{found.map((one) => <tr key={one.id}><td class="grow"><Text value={one.name} /></td><td>{one.auth_type}</td><td>{one.login_enabled ? "yes" : "no"}</td><td>{one.registration_enabled ? "yes" : "no"}</td></tr>)}</tbody>
        </table>
      )}
    </Loaded>
  );
}
