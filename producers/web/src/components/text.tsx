// Text of other people, and the small forms in which the page shows ids, commands and code.
import { useEffect, useState } from "preact/hooks";
import { pieces, visible } from "../text/safe";
import { Icon } from "./icon";

/** Hostile text in a line: hidden characters as escapes, its direction kept to itself. */
export function Text({ value, title = false }: { value: string; title?: boolean }) {
  const found = pieces(value);
  return (
    <bdi title={title ? visible(value) : undefined}>
      {found.map((one, index) => (one.escape ? <span key={index} class="escape">{one.text}</span> : one.text))}
    </bdi>
  );
}

/** A text that is cut with … where there is no room, whole in its tooltip. */
export function Cut({ value, class: name = "" }: { value: string; class?: string }) {
  return <span class={`cut ${name}`} title={visible(value)}><Text value={value} /></span>;
}

export function Mono({ value, class: name = "" }: { value: string; class?: string }) {
  return <code class={name}><Text value={value} /></code>;
}

/** The first characters of an id or a commit, whole in the tooltip. */
export function ShortId({ value, length = 8 }: { value: string; length?: number }) {
  return <code title={visible(value)}>{visible(value.slice(0, length))}</code>;
}

/** Who decided, such as `user:ann` or `executor:ID`; ids are cut, whole in the tooltip. */
export function Actor({ value }: { value: string }) {
  return <span title={visible(value)}><Text value={value.replace(/^user:/, "").replace(/:([0-9a-f]{8})-[0-9a-f-]{27}$/, " $1")} /></span>;
}

/** A block of code or a command, with a button that copies it. */
export function Code({ value, label = "Copy" }: { value: string; label?: string }) {
  return (
    <div class="code-block">
      <pre tabIndex={0}><Text value={value} /></pre>
      <CopyButton value={value} label={label} />
    </div>
  );
}

export function CopyButton({ value, label = "Copy", words = false }: { value: string; label?: string; words?: boolean }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = (): void => {
    void navigator.clipboard?.writeText(value).then(() => setCopied(true));
  };
  return (
    <button type="button" class="quiet small" title={label} aria-label={words ? undefined : copied ? "Copied" : label} onClick={copy}>
      <Icon name={copied ? "check" : "copy"} />
      {words && (copied ? "Copied" : label)}
      <span class="unseen" role="status">{copied ? "Copied" : ""}</span>
    </button>
  );
}
