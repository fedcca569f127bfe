// /ui/p: the tree of project groups and projects, and what belongs to each of them.
import { segment, get, send } from "../../api/client";
import { useGet } from "../../api/resource";
import { session } from "../../api/session";
import type { AuditEntry, MembershipView, OrganizationView, ProjectGroupView, ProjectView, RunsAnswer } from "../../api/types";
import { href, navigate, query, type Route } from "../../app/router";
import { ask, type Field } from "../../components/forms";
import { Icon } from "../../components/icon";
import { askDelete } from "../../components/overlay";
import { Empty, Loaded, PageHead, Tabs, useTitle } from "../../components/parts";
import { runState, StateBadge } from "../../components/state";
import { Actor, Code, Cut, Text } from "../../components/text";
import { Ago, Duration } from "../../components/time";
import { headline, origin, runRef } from "../../text/run";
import { Secrets } from "./secrets";
import { Variables } from "./variables";

export const projectRoutes: readonly Route[] = [
  { pattern: "/p", title: "Projects", render: () => <Home /> },
  { pattern: "/p/*path", title: "Project", render: ({ path = "" }) => <ProjectPage key={path} path={path} /> },
  { pattern: "/g/*path", title: "Project group", render: ({ path = "" }) => <GroupPage key={path} path={path} /> },
];

const VISIBILITIES = [
  { value: "public", label: "Public: everyone may see it" },
  { value: "private", label: "Private: members alone see it" },
] as const;

type Values = Record<string, string>;

/** The address of a project. */
export function projectHref(path: string, values: Values = {}): string {
  return href(`/p/${path.split("/").map(encodeURIComponent).join("/")}`, values);
}

/** The address of a project group; that of a user or organization is `user/NAME`, `org/NAME`. */
export function groupHref(path: string, values: Values = {}): string {
  return href(`/g/${path.split("/").map(encodeURIComponent).join("/")}`, values);
}

function Home() {
  const login = session.value;
  const mine = login?.user;
  const memberships = useGet<MembershipView[]>(mine ? "/user/orgs" : null);
  const all = useGet<OrganizationView[]>(login?.admin ? "/orgs" : null, { limit: 100 });
  return (
    <>
      <PageHead title="Projects" actions={mine && <button type="button" onClick={newOrganization}><Icon name="plus" />New organization</button>} />
      {mine && (
        <section class="block">
          <h2><a href={groupHref(`user/${mine.username}`)}>Your projects</a></h2>
          <Contents path={`user/${mine.username}`} />
        </section>
      )}
      {mine && <section class="block"><h2>Your organizations</h2><Loaded of={memberships} lines={2}>{(found) => <Organizations found={found.map((one) => one.Organization)} />}</Loaded></section>}
      {login?.admin && <section class="block"><h2>All organizations</h2><Loaded of={all} lines={2}>{(found) => <Organizations found={found} />}</Loaded></section>}
      {!mine && <p class="faint">You are logged in by the admin token, which belongs to no user: this command creates a user and prints a link that logs in. <Code value="runstream user create NAME && runstream user login-link NAME" /></p>}
    </>
  );
}

function newOrganization(): void {
  ask({
    title: "New organization",
    action: "Create organization",
    fields: [{ name: "name", label: "Name", hint: "letters, digits and single hyphens" }, { name: "visibility", label: "Visibility", kind: "choice", options: VISIBILITIES }],
    run: async (values) => {
      const made = await send<OrganizationView>("POST", "/orgs", values);
      navigate(groupHref(`org/${made.name}`));
    },
  });
}

function Organizations({ found }: { found: readonly OrganizationView[] }) {
  if (!found.length) return <p class="faint">None.</p>;
  return <ul class="entries">{found.map((one) => <li key={one.id}><Icon name="user" /><a href={groupHref(`org/${one.name}`)}><Text value={one.name} /></a><Private when={one.visibility} /><a class="push faint" href={href(`/orgs/${encodeURIComponent(one.name)}`)}>Members</a></li>)}</ul>;
}

function Private({ when }: { when: string | undefined }) {
  return when === "private" ? <span class="faint private"><Icon name="lock" />private</span> : null;
}

function ProjectPage({ path }: { path: string }) {
  const found = useGet<ProjectView>(`/projects/${segment(path)}`);
  useTitle(path);
  return <Loaded of={found}>{(project) => <Project project={project} reload={found.reload} />}</Loaded>;
}

function GroupPage({ path }: { path: string }) {
  const found = useGet<ProjectGroupView>(`/projectgroups/${segment(path)}`);
  useTitle(path);
  return <Loaded of={found}>{(group) => <Group group={group} reload={found.reload} />}</Loaded>;
}

/** The path as links to its parts. */
function Trail({ path }: { path: string }) {
  const parts = path.split("/");
  const [kind = "", root = "", ...rest] = parts;
  return (
    <>
      <a href={groupHref(`${kind}/${root}`)} class={rest.length ? "faint" : ""}><Text value={root} /></a>
      {rest.map((name, index) => {
        const last = index === rest.length - 1;
        return <span key={index}><span class="faint"> / </span>{last ? <Text value={name} /> : <a class="faint" href={groupHref([kind, root, ...rest.slice(0, index + 1)].join("/"))}><Text value={name} /></a>}</span>;
      })}
    </>
  );
}

function Group({ group, reload }: { group: ProjectGroupView; reload: () => void }) {
  const tab = query.value.get("tab") ?? "projects";
  const { path } = group;
  const root = path.split("/").length === 2;
  const [kind, owner = ""] = path.split("/");
  const tabs = [
    { name: "projects", label: "Projects", href: groupHref(path) },
    { name: "secrets", label: "Secrets", href: groupHref(path, { tab: "secrets" }) },
    { name: "variables", label: "Variables", href: groupHref(path, { tab: "variables" }) },
  ];
  return (
    <>
      <PageHead
        title={<Trail path={path} />}
        actions={
          <>
            {root && kind === "org" && <a class="button" href={href(`/orgs/${encodeURIComponent(owner)}`)}><Icon name="user" />Members</a>}
            {!root && <button type="button" onClick={() => change("projectgroups", group.id, group, reload)}>Change…</button>}
            {!root && <button type="button" onClick={() => remove("projectgroups", group.id, group.name, group.parent_path)}><Icon name="trash" />Delete…</button>}
            <button type="button" onClick={() => newGroup(path)}><Icon name="plus" />New group</button>
            <button type="button" class="primary" onClick={() => newProject(path)}><Icon name="plus" />New project</button>
          </>
        }
      >
        <Private when={group.global_visibility} />
      </PageHead>
      <Tabs tabs={tabs} current={tab} label="Parts of the group" />
      {tab === "secrets" ? <Secrets kind="projectgroups" owner={group.id} path={path} /> : tab === "variables" ? <Variables kind="projectgroups" owner={group.id} path={path} /> : <Contents path={path} />}
    </>
  );
}

function Contents({ path }: { path: string }) {
  const groups = useGet<ProjectGroupView[]>(`/projectgroups/${segment(path)}/subgroups`);
  const projects = useGet<ProjectView[]>(`/projectgroups/${segment(path)}/projects`);
  return (
    <Loaded of={groups} lines={3}>
      {(subgroups) => (
        <Loaded of={projects} lines={3}>
          {(found) =>
            subgroups.length + found.length === 0 ? (
              <Empty icon="branch" title="There are no projects here yet"><p class="faint">A project is a repository whose commits are run.</p></Empty>
            ) : (
              <ul class="entries">
                {subgroups.map((one) => <li key={one.id}><Icon name="menu" /><a href={groupHref(one.path)}><Text value={one.name} />/</a><Private when={one.global_visibility} /></li>)}
                {found.map((one) => <li key={one.id}><Icon name="branch" /><a href={projectHref(one.path ?? "")}><Text value={one.name ?? ""} /></a><Private when={one.global_visibility} /><span class="push faint cut"><Text value={one.repository_url ?? ""} /></span></li>)}
              </ul>
            )
          }
        </Loaded>
      )}
    </Loaded>
  );
}

function Project({ project, reload }: { project: ProjectView; reload: () => void }) {
  const tab = query.value.get("tab") ?? "runs";
  const { id = "", name = "", path = "", parent_path: parent = "" } = project;
  const tabs = [
    { name: "runs", label: "Runs", href: projectHref(path) },
    { name: "secrets", label: "Secrets", href: projectHref(path, { tab: "secrets" }) },
    { name: "variables", label: "Variables", href: projectHref(path, { tab: "variables" }) },
    { name: "settings", label: "Settings", href: projectHref(path, { tab: "settings" }) },
    { name: "audit", label: "Audit", href: projectHref(path, { tab: "audit" }) },
  ];
  return (
    <>
      <PageHead title={<Trail path={path} />} actions={<button type="button" class="primary" onClick={() => startRun(project)}><Icon name="play" />Run…</button>}>
        <Private when={project.global_visibility} />
        {project.repository_url && <span class="faint cut"><Text value={project.repository_url} /></span>}
      </PageHead>
      <Tabs tabs={tabs} current={tab} label="Parts of the project" />
      {tab === "secrets" ? (
        <Secrets kind="projects" owner={id} path={path} />
      ) : tab === "variables" ? (
        <Variables kind="projects" owner={id} path={path} />
      ) : tab === "settings" ? (
        <Settings project={project} reload={reload} onDelete={() => remove("projects", id, name, parent)} />
      ) : tab === "audit" ? (
        <Audit path={path} />
      ) : (
        <Runs id={id} />
      )}
    </>
  );
}

function Runs({ id }: { id: string }) {
  const runs = useGet<RunsAnswer>("/runs", { group: `/project/${id}`, limit: 30 });
  return (
    <Loaded of={runs}>
      {({ runs: found }) =>
        found.length === 0 ? (
          <Empty icon="play" title="This project has no runs yet"><p class="faint">“Run…” runs a branch, a tag or a commit of its repository.</p></Empty>
        ) : (
          <>
            <table>
              <thead><tr><th>State</th><th>Run</th><th>Origin</th><th class="number">Took</th><th class="number">Created</th></tr></thead>
              <tbody>
                {found.map((run) => {
                  const from = origin(run);
                  return (
                    <tr key={run.id}>
                      <td><StateBadge name={runState(run)} /></td>
                      <td class="grow"><a class="cut" href={href(`/runs/${run.id}`)}><Text value={run.name} /> <span class="faint">#{run.counter}</span></a></td>
                      <td>{from ? <span class="origin"><Icon name={from.kind} /><Cut value={from.name} /></span> : <Cut value={runRef(run)} />}<small class="faint"><Cut value={headline(run.annotations.message)} /></small></td>
                      <td class="number"><Duration from={run.start_time} to={run.end_time} /></td>
                      <td class="number"><Ago at={run.enqueue_time} /></td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
            <p><a href={href("/", { group: `/project/${id}` })}>All runs of this project</a></p>
          </>
        )
      }
    </Loaded>
  );
}

function startRun(project: ProjectView): void {
  ask({
    title: "Run this project",
    action: "Start run",
    fields: [
      { name: "kind", label: "What to run", kind: "choice", options: [{ value: "branch", label: "A branch" }, { value: "tag", label: "A tag" }, { value: "ref", label: "A ref" }] },
      { name: "name", label: "Its name", value: project.default_branch || "main" },
      { name: "commit_sha", label: "Commit", optional: true, hint: "a commit of it; empty: the latest" },
    ],
    run: async ({ kind = "branch", name = "", commit_sha: commit = "" }) => {
      await send("POST", `/projects/${project.id}/createrun`, { [kind]: name, ...(commit && { commit_sha: commit }) });
      const { runs } = await get<RunsAnswer>("/runs", { group: `/project/${project.id}`, limit: 1 });
      navigate(runs[0] ? href(`/runs/${runs[0].id}`) : projectHref(project.path ?? ""));
    },
  });
}

function newGroup(parent: string): void {
  ask({
    title: "New project group",
    action: "Create group",
    fields: [{ name: "name", label: "Name" }, { name: "visibility", label: "Visibility", kind: "choice", options: VISIBILITIES }],
    run: async (values) => {
      const made = await send<ProjectGroupView>("POST", "/projectgroups", { ...values, parent_ref: parent });
      navigate(groupHref(made.path));
    },
  });
}

const REPOSITORY: readonly Field[] = [
  { name: "url", label: "URL of the repository", hint: "https, ssh, or a path that the administrator allows" },
  { name: "username", label: "User name at its host", optional: true },
  { name: "password", label: "Token or password", kind: "password", optional: true },
  { name: "ssh_private_key", label: "Private SSH key", kind: "lines", optional: true },
  { name: "known_hosts", label: "Known hosts", kind: "lines", optional: true, hint: "lines of known_hosts for an SSH host" },
];

function repositoryOf(values: Record<string, string>): Record<string, string> {
  return Object.fromEntries(REPOSITORY.flatMap(({ name }) => (values[name] ? [[name, values[name]]] : [])));
}

function newProject(parent: string): void {
  ask({
    title: "New project",
    action: "Create project",
    fields: [{ name: "name", label: "Name" }, { name: "visibility", label: "Visibility", kind: "choice", options: VISIBILITIES }, ...REPOSITORY],
    run: async ({ name, visibility, ...rest }) => {
      const made = await send<ProjectView>("POST", "/projects", { name, visibility, parent_ref: parent, repository: repositoryOf(rest) });
      navigate(projectHref(made.path ?? ""));
    },
  });
}

type Kind = "projects" | "projectgroups";

function change(kind: Kind, id: string, now: { name?: string; parent_path?: string; visibility?: string }, reload: () => void): void {
  ask({
    title: kind === "projects" ? "Change this project" : "Change this group",
    action: "Save",
    fields: [
      { name: "name", label: "Name", value: now.name ?? "" },
      { name: "parent_ref", label: "Parent group", value: now.parent_path ?? "", hint: "another one moves it there" },
      { name: "visibility", label: "Visibility", kind: "choice", options: VISIBILITIES, value: now.visibility ?? "public" },
    ],
    run: async (values) => {
      const changes = Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== (name === "parent_ref" ? now.parent_path : now[name as "name" | "visibility"])));
      const made = await send<ProjectView>("PUT", `/${kind}/${id}`, changes);
      navigate((kind === "projects" ? projectHref : groupHref)(made.path ?? ""), { replace: true });
      reload();
    },
  });
}

function remove(kind: Kind, id: string, name: string, parent: string): void {
  const what = kind === "projects" ? "project" : "group";
  const text = kind === "projects" ? "Its secrets and variables are deleted with it; its runs stay." : "Its groups, projects, secrets and variables are deleted with it; runs stay.";
  askDelete({ what, text, path: `/${kind}/${id}`, word: name, then: () => navigate(groupHref(parent)) });
}

function Settings({ project, reload, onDelete }: { project: ProjectView; reload: () => void; onDelete: () => void }) {
  const { id = "" } = project;
  const set = (title: string, field: Field): void =>
    ask({
      title,
      action: "Save",
      fields: [field],
      run: async (values) => {
        const value = values[field.name] ?? "";
        await send("PUT", `/projects/${id}`, { [field.name]: field.kind === "choice" && (value === "true" || value === "false") ? value === "true" : value });
        reload();
      },
    });
  const yesNo = [{ value: "true", label: "Yes" }, { value: "false", label: "No" }];
  const rows: [string, string, () => void][] = [
    ["Name, parent group, visibility", `${project.name}, ${project.parent_path}, ${project.visibility}`, () => change("projects", id, project, reload)],
    ["Default branch", project.default_branch || "–", () => set("Default branch", { name: "default_branch", label: "Default branch", value: project.default_branch ?? "", optional: true })],
    ["Members may act on runs", project.members_can_perform_run_actions ? "yes" : "no", () => set("Members may act on runs", { name: "members_can_perform_run_actions", label: "Members may stop, restart and approve runs", kind: "choice", options: yesNo, value: String(project.members_can_perform_run_actions ?? false) })],
    ["Variables for pull requests of forks", project.pass_vars_to_forked_pr ? "yes" : "no", () => set("Variables for pull requests of forks", { name: "pass_vars_to_forked_pr", label: "Runs of forks get secrets and variables", kind: "choice", options: yesNo, value: String(project.pass_vars_to_forked_pr ?? false) })],
    ["Repository", project.repository_url || "–", () => ask({ title: "Repository", action: "Save", fields: REPOSITORY.map((one) => (one.name === "url" ? { ...one, value: project.repository_url ?? "" } : one)), run: async (values) => {
      await send("PUT", `/projects/${id}`, { repository: repositoryOf(values) });
      reload();
    } })],
  ];
  return (
    <>
      <table class="settings"><tbody>{rows.map(([label, value, act]) => <tr key={label}><th scope="row">{label}</th><td class="grow"><Cut value={value} /></td><td><button type="button" class="small" aria-label={`Change: ${label}`} onClick={act}>Change…</button></td></tr>)}</tbody></table>
      <section class="block"><h2>Badge</h2><Code value={`${location.origin}/api/v1alpha/badges/${id}?branch=${project.default_branch || "main"}`} /></section>
      <section class="block"><h2>Delete</h2><p><button type="button" class="danger" onClick={onDelete}><Icon name="trash" />Delete project…</button></p></section>
    </>
  );
}

export function Audit({ path, user }: { path?: string; user?: string }) {
  const entries = useGet<AuditEntry[]>("/audit", { ...(path && { project: path }), ...(user && { user }), limit: 100 });
  return (
    <Loaded of={entries}>
      {(found) =>
        found.length === 0 ? <Empty title="Nothing was changed yet" /> : (
          <table>
            <thead><tr><th>When</th><th>What</th><th>Where</th><th>Who</th></tr></thead>
            <tbody>{found.map((one) => <tr key={one.position}><td><Ago at={one.time} /></td><td>{one.events.map((event) => event.type).join(", ")}</td><td class="grow"><Cut value={one.path || one.name || one.id} /></td><td><Actor value={one.actor} /></td></tr>)}</tbody>
          </table>
        )
      }
    </Loaded>
  );
}
