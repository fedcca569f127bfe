// The secrets of a project or group: their names and keys' places, never their values.
import { send, segment } from "../../api/client";
import { useGet } from "../../api/resource";
import type { SecretView } from "../../api/types";
import { ask } from "../../components/forms";
import { Icon } from "../../components/icon";
import { Empty, Loaded } from "../../components/parts";
import { Text } from "../../components/text";
import { Inherited, type Owner } from "./inherited";

export function Secrets({ kind, owner, path }: Owner) {
  const own = useGet<SecretView[]>(`/${kind}/${owner}/secrets`, { tree: true });
  const base = `/${kind}/${owner}/secrets`;
  return (
    <>
      <p class="tools"><span class="faint">A value is written and never shown again. Variables give secrets to tasks.</span><button type="button" class="push" onClick={() => edit(base, null, own.reload)}><Icon name="plus" />New secret</button></p>
      <Loaded of={own}>
        {(found) =>
          found.length === 0 ? <Empty icon="key" title="There are no secrets here" /> : (
            <Inherited entries={found} path={path} what="secret" base={base} lost={({ name }) => <>Tasks whose variables take <Text value={name} /> no longer get it.</>} edit={(one) => edit(base, one, own.reload)} reload={own.reload} />
          )
        }
      </Loaded>
    </>
  );
}

function edit(base: string, secret: SecretView | null, reload: () => void): void {
  ask({
    title: secret ? "Change this secret" : "New secret",
    action: secret ? "Save" : "Create secret",
    fields: [
      { name: "name", label: "Name", value: secret?.name ?? "" },
      { name: "data", label: "Keys and values", kind: "lines", hint: "one KEY=value a line; all keys of the secret, also those that stay" },
    ],
    run: async ({ name = "", data = "" }) => {
      const pairs = data.split("\n").filter((one) => one.trim()).map((line) => {
        const at = line.indexOf("=");
        return at < 0 ? [line.trim(), ""] : [line.slice(0, at).trim(), line.slice(at + 1)];
      });
      const body = { name, type: "internal", data: Object.fromEntries(pairs) as Record<string, string> };
      await (secret ? send("PUT", `${base}/${segment(secret.name)}`, body) : send("POST", base, body));
      reload();
    },
  });
}
