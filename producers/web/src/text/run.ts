// How a run is named: group, number, and what it was made of.
type Named = { group: string; counter: number };

/** `/project/web/branch/main #12`. */
export function runRef(run: Named): string {
  return run.counter ? `${run.group} #${run.counter}` : run.group;
}

export type Origin = { kind: "branch" | "tag" | "pullrequest"; name: string } | null;

type Annotated = { group: string; annotations: Record<string, string> };

/** The branch, tag or pull request of a run: from its annotations, else from its group. */
export function origin(run: Annotated): Origin {
  const { branch, tag, pull_request_id: request } = run.annotations;
  if (request) return { kind: "pullrequest", name: `#${request}` };
  if (tag) return { kind: "tag", name: tag };
  if (branch) return { kind: "branch", name: branch };
  const [, , , kind, ...rest] = run.group.split("/");
  const name = rest.map(decoded).join("/");
  if (!name) return null;
  if (kind === "branch" || kind === "tag") return { kind, name };
  return kind === "pr" ? { kind: "pullrequest", name: `#${name}` } : null;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The first line of a commit message. */
export function headline(message: string | undefined): string {
  return (message ?? "").split("\n", 1)[0]?.trim() ?? "";
}
