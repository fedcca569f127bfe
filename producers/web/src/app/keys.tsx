// Keyboard: pages register keys while they are shown, and `?` lists them.
//
// A key is a character ("/"), a name ("Escape"), a chord ("Control+k") or two characters in a row ("g r").
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Dialog } from "../components/overlay";

export type Binding = { key: string; does: string; run: (event: KeyboardEvent) => void; group: string };

const bindings = signal<readonly Binding[]>([]);
const helping = signal(false);
const SEQUENCE_MS = 1000;

/** Registers a key; the latest registration of a key wins. Returns what removes it. */
export function bind(binding: Binding): () => void {
  bindings.value = [...bindings.peek(), binding];
  return () => {
    bindings.value = bindings.peek().filter((one) => one !== binding);
  };
}

/** Registers a key while a component is shown. */
export function useKey(key: string, does: string, run: (event: KeyboardEvent) => void, group = "This page"): void {
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => bind({ key, does, group, run: (event) => latest.current(event) }), [key, does, group]);
}

let first = "";
let firstAt = 0;

function typing(event: KeyboardEvent): boolean {
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range])");
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing) return;
  const chord = event.ctrlKey || event.metaKey;
  if (event.altKey || (typing(event) && !chord && event.key !== "Escape")) return;
  const pressed = chord ? `Control+${event.key.toLowerCase()}` : event.key;
  // A modal dialog has the keyboard for itself.
  if (document.querySelector("dialog:modal")) return;
  const sequence = event.timeStamp - firstAt < SEQUENCE_MS ? `${first} ${pressed}` : "";
  const found = bindings.peek().findLast((one) => one.key === sequence) ?? bindings.peek().findLast((one) => one.key === pressed);
  first = found || pressed.length !== 1 ? "" : pressed;
  firstAt = event.timeStamp;
  if (!found) return;
  event.preventDefault();
  found.run(event);
});

export function showKeys(): void {
  helping.value = true;
}

bind({ key: "?", does: "Show the keys", group: "Everywhere", run: showKeys });

function Keys({ text }: { text: string }) {
  return <>{text.split(/[ +]/).map((one, index) => <kbd key={index}>{one === "Control" ? "Ctrl" : one === " " ? "Space" : one.length === 1 && text.includes("+") ? one.toUpperCase() : one}</kbd>)}</>;
}

export function KeysHelp() {
  if (!helping.value) return null;
  const groups = Map.groupBy(bindings.value, (one) => one.group);
  return (
    <Dialog title="Keys" onClose={() => (helping.value = false)}>
      {[...groups].reverse().map(([group, found]) => (
        <section key={group}>
          <h3>{group}</h3>
          <dl class="keys">
            {found.map((one) => <div key={one.key}><dt><Keys text={one.key} /></dt><dd>{one.does}</dd></div>)}
          </dl>
        </section>
      ))}
    </Dialog>
  );
}
