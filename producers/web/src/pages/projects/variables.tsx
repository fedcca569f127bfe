// The variables of a project or group: which key of which secret each takes, and for which branches, tags and refs.
import { ApiError, send, segment } from "../../api/client";
import { useGet } from "../../api/resource";
import type { ConditionsView, VariableValueView, VariableView } from "../../api/types";
import { ask } from "../../components/forms";
import { Icon } from "../../components/icon";
import { Empty, Loaded } from "../../components/parts";
import { Mono, Text } from "../../components/text";
import { Inherited, type Owner } from "./inherited";

export function Variables({ kind, owner, path }: Owner) {
  const base = `/${kind}/${owner}/variables`;
  const own = useGet<VariableView[]>(base, { tree: true, removeoverridden: true });
  return (
    <>
      <p class="tools"><span class="faint">A task asks for a variable by <code>from_variable</code>; the first value whose condition fits is taken.</span><button type="button" class="push" onClick={() => edit(base, null, own.reload)}><Icon name="plus" />New variable</button></p>
      <Loaded of={own}>
        {(found) =>
          found.length === 0 ? <Empty icon="tag" title="There are no variables here" /> : (
            <Inherited
              entries={found}
              path={path}
              what="variable"
              base={base}
              more={{ heading: "Takes", cell: (one) => <ol>{one.values.map((value, index) => <li key={index}><Mono value={`${value.secret_name}.${value.secret_var}`} /> <Source value={value} path={path} /> {when(value)}</li>)}</ol> }}
              lost={({ name }) => <>Tasks that ask for <Text value={name} /> no longer get a value of it.</>}
              edit={(one) => edit(base, one, own.reload)}
              reload={own.reload}
            />
          )
        }
      </Loaded>
    </>
  );
}

/** Where the secret that a value takes is found from here. */
function Source({ value, path }: { value: VariableValueView; path: string }) {
  const from = value.matching_secret_parent_path;
  if (!from) return <span class="state failed"><Icon name="warning" />no such secret</span>;
  return from === path ? null : <small class="faint">from <Text value={from} /></small>;
}

function when(value: VariableValueView): string {
  if (!value.when) return "always";
  const parts = (["branch", "tag", "ref"] as const).flatMap((kind) => {
    const text = patterns(value.when?.[kind]);
    return text ? [`${kind} ${text}`] : [];
  });
  return parts.length ? `for ${parts.join(" or ")}` : "always";
}

function patterns(found: ConditionsView | null | undefined): string {
  const names = (those: readonly { type?: string; match?: string }[] | undefined): string => (those ?? []).map((one) => (one.type === "regexp" ? `/${one.match}/` : (one.match ?? ""))).join(", ");
  const [include, exclude] = [names(found?.include), names(found?.exclude)];
  return [include, exclude && `but not ${exclude}`].filter(Boolean).join(" ");
}

// A value a line: `secret.KEY`, then for what it is meant, `branch=main` or `tag=/^v/`, and for what not, `branch!=dev`.
export function parsedValues(text: string): { secret_name: string; secret_var: string; when?: Record<string, unknown> }[] {
  return text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const [source = "", ...conditions] = line.split(/\s+/);
    const at = source.lastIndexOf(".");
    const value = { secret_name: source.slice(0, Math.max(at, 0)), secret_var: source.slice(at + 1) };
    const when: Record<string, Record<"include" | "exclude", { type: string; match: string }[]>> = {};
    for (const one of conditions) {
      const [, kind = "", not = "", match = ""] = /^(branch|tag|ref)(!?)=(.+)$/.exec(one) ?? [];
      if (!kind) throw new ApiError(0, "", `“${one}” is no condition`, "such as branch=main, branch!=dev, tag=/^v/ or ref=refs/heads/main");
      const regexp = /^\/(.*)\/$/.exec(match)?.[1];
      (when[kind] ??= { include: [], exclude: [] })[not ? "exclude" : "include"].push(regexp === undefined ? { type: "simple", match } : { type: "regexp", match: regexp });
    }
    return Object.keys(when).length ? { ...value, when } : value;
  });
}

function lineOf(value: VariableValueView): string {
  const conditions = (["branch", "tag", "ref"] as const).flatMap((kind) =>
    (["include", "exclude"] as const).flatMap((side) => (value.when?.[kind]?.[side] ?? []).map((one) => `${kind}${side === "exclude" ? "!" : ""}=${one.type === "regexp" ? `/${one.match}/` : one.match}`)),
  );
  return [`${value.secret_name}.${value.secret_var}`, ...conditions].join(" ");
}

function edit(base: string, variable: VariableView | null, reload: () => void): void {
  ask({
    title: variable ? "Change this variable" : "New variable",
    action: variable ? "Save" : "Create variable",
    fields: [
      { name: "name", label: "Name", value: variable?.name ?? "" },
      { name: "values", label: "Values", kind: "lines", value: variable?.values.map(lineOf).join("\n") ?? "", hint: "one a line, the first that fits is taken: secret.KEY branch=main branch!=dev tag=/^v/" },
    ],
    run: async ({ name = "", values = "" }) => {
      const body = { name, values: parsedValues(values) };
      await (variable ? send("PUT", `${base}/${segment(variable.name)}`, body) : send("POST", base, body));
      reload();
    },
  });
}
