// What a project or group has of its own and of the groups above it: secrets and variables.
import type { ComponentChildren } from "preact";
import { segment } from "../../api/client";
import { Icon } from "../../components/icon";
import { askDelete } from "../../components/overlay";
import { Text } from "../../components/text";
import { groupHref } from "./index";

export type Owner = { kind: "projects" | "projectgroups"; owner: string; path: string };
type Entry = { id: string; name: string; parent_path: string };

type Props<T extends Entry> = {
  entries: readonly T[];
  path: string;
  /** "secret", "variable". */
  what: string;
  /** The path of the entries in the API. */
  base: string;
  /** What stands beside a name, and its heading. */
  more?: { heading: string; cell: (entry: T) => ComponentChildren };
  lost: (entry: T) => ComponentChildren;
  edit: (entry: T) => void;
  reload: () => void;
};

export function Inherited<T extends Entry>({ entries, path, what, base, more, lost, edit, reload }: Props<T>) {
  return (
    <table>
      <thead><tr><th>Name</th>{more && <th>{more.heading}</th>}<th>Of</th><td /></tr></thead>
      <tbody>
        {entries.map((one) => {
          const mine = one.parent_path === path;
          return (
            <tr key={one.id} class={mine ? "" : "faint"}>
              <td class={more ? "" : "grow"}><strong><Text value={one.name} /></strong></td>
              {more && <td class="grow">{more.cell(one)}</td>}
              <td>{mine ? "here" : <a href={groupHref(one.parent_path, { tab: `${what}s` })}><Text value={one.parent_path} /></a>}</td>
              <td class="number">
                {mine && (
                  <>
                    <button type="button" class="small" onClick={() => edit(one)}>Change…</button>{" "}
                    <button type="button" class="small" aria-label={`Delete ${one.name}`} onClick={() => askDelete({ what, text: lost(one), path: `${base}/${segment(one.name)}`, then: reload })}><Icon name="trash" /></button>
                  </>
                )}
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
