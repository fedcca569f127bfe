// What the object storage holds, and what retention removes next.
import { useGet } from "../../api/resource";
import type { StorageStatus } from "../../api/types";
import { Loaded } from "../../components/parts";
import { Text } from "../../components/text";
import { Ago } from "../../components/time";
import { bytes } from "../../text/time";

export function Storage() {
  const storage = useGet<StorageStatus>("/storage");
  return (
    <Loaded of={storage}>
      {({ measured_at: at, kinds }) => (
        <>
          <table class="cards">
            <thead><tr><th>Kind</th><th class="number">Objects</th><th class="number">Size</th><th class="number">Due</th><th class="number">Next removal</th><th>Of</th></tr></thead>
            <tbody>{kinds.map((one) => <tr key={one.kind}><td><Text value={one.kind} /></td><td class="number" data-label="Objects">{one.objects.toLocaleString("en")}</td><td class="number" data-label="Size">{one.bytes === null ? "–" : bytes(one.bytes)}</td><td class="number" data-label="Due">{one.due?.toLocaleString("en")}</td><td class="number" data-label="Next removal"><Ago at={one.next_removal} /></td><td class="grow wrap-text">{one.next_group && <Text value={one.next_group} />}</td></tr>)}</tbody>
          </table>
          <p class="faint">Measured <Ago at={at} />. The setting <code>retention</code> says what is kept.</p>
        </>
      )}
    </Loaded>
  );
}
