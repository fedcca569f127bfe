// Small parts of pages: tabs, tables, and what is shown where there is nothing, not yet, or an error.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { ApiError } from "../api/client";
import type { Resource } from "../api/resource";
import { visible } from "../text/safe";
import { Icon, type IconName } from "./icon";

/** Sets the title of the tab while the page is shown. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title ? `${visible(title)} · Runstream` : "Runstream";
  }, [title]);
}

/** The head of a page: its title, what stands beside it, and actions at the right. */
export function PageHead({ title, children, actions }: { title: ComponentChildren; children?: ComponentChildren; actions?: ComponentChildren }) {
  return (
    <header class="page-head">
      <div class="page-title"><h1>{title}</h1>{children}</div>
      {actions && <div class="actions">{actions}</div>}
    </header>
  );
}

export type Tab = { name: string; label: ComponentChildren; href: string; icon?: IconName };

/** Tabs that are links: each has an address. */
export function Tabs({ tabs, current, label }: { tabs: readonly Tab[]; current: string; label: string }) {
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    // In a narrow window the row scrolls: the current tab is in the middle of it.
    const [row, tab] = [nav.current, nav.current?.querySelector<HTMLElement>("[aria-current]")];
    if (row && tab) row.scrollLeft = tab.offsetLeft - row.offsetLeft - (row.clientWidth - tab.offsetWidth) / 2;
  }, [current]);
  return (
    <nav ref={nav} class="tabs" aria-label={label}>
      {tabs.map((tab) => (
        <a key={tab.name} href={tab.href} aria-current={tab.name === current ? "page" : undefined}>
          {tab.icon && <Icon name={tab.icon} />}{tab.label}
        </a>
      ))}
    </nav>
  );
}

/** A choice of a few, as a row of buttons. */
export function Choice<T extends string>({ label, options, value, onChange }: { label: string; options: readonly { value: T; label: string; icon?: IconName }[]; value: T; onChange: (value: T) => void }) {
  return (
    <div class="choice" role="group" aria-label={label}>
      {options.map((one) => (
        <button key={one.value} type="button" aria-pressed={one.value === value} onClick={() => onChange(one.value)}>
          {one.icon && <Icon name={one.icon} />}{one.label}
        </button>
      ))}
    </div>
  );
}

export function Empty({ icon = "info", title, children }: { icon?: IconName; title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <Icon name={icon} />
      <p><strong>{title}</strong></p>
      {children}
    </div>
  );
}

/** An error in the API's words, with its hint. */
export function Failure({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <div class="empty failed" role="alert">
      <Icon name="warning" />
      <p><strong>{visible(error.message)}</strong></p>
      {error.hint && <p class="faint">{visible(error.hint)}</p>}
      {error.code && <p class="faint"><code>{visible(error.code)}</code></p>}
      {retry && <button type="button" onClick={retry}>Try again</button>}
    </div>
  );
}

/** Lines in place of what is still on its way. */
export function Skeleton({ lines = 6 }: { lines?: number }) {
  return (
    <div class="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, index) => <span key={index} />)}
    </div>
  );
}

/** The data of a resource, or what stands in its place. */
export function Loaded<T>({ of, children, lines = 6 }: { of: Resource<T>; children: (data: T) => ComponentChildren; lines?: number }) {
  const data = of.data.value;
  const error = of.error.value;
  // While the service is away the frame says so, and old data is better than none.
  if (error && (data === undefined || (error.status >= 400 && error.status < 500))) return <Failure error={error} retry={of.reload} />;
  if (data === undefined) return <Skeleton lines={lines} />;
  return <>{children(data)}</>;
}

export function Count({ value }: { value: number | undefined }) {
  return value === undefined ? null : <span class="count">{value.toLocaleString("en")}</span>;
}

/** A banner inside a page. */
export function Note({ icon = "info", tone = "neutral", children }: { icon?: IconName; tone?: "neutral" | "warning" | "failed" | "running"; children: ComponentChildren }) {
  return <div class={`note ${tone}`}><Icon name={icon} /><div>{children}</div></div>;
}
