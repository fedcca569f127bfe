// Dialogs, confirmations, menus and toasts, on the platform's <dialog> and popover.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { ApiError, send } from "../api/client";
import { visible } from "../text/safe";
import { Icon, type IconName } from "./icon";

/** A modal dialog; Escape and a click beside it close it. */
export function Dialog({ title, onClose, children, wide = false }: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const element = dialog.current;
    const opener = document.activeElement;
    element?.showModal();
    return () => {
      element?.close();
      // Who closes it with Escape goes on where they were.
      if (opener instanceof HTMLElement) opener.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      class={wide ? "wide" : ""}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onMouseDown={(event) => {
        if (event.target === dialog.current) onClose();
      }}
    >
      <div class="dialog-body">
        <header>
          <h2 id={id}>{title}</h2>
          <button type="button" class="quiet" aria-label="Close" title="Close (Esc)" onClick={onClose}><Icon name="cross" /></button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

export type Question = {
  title: string;
  /** What will happen, and what cannot be undone. */
  text: ComponentChildren;
  /** The verb of the button: "Delete run". */
  action: string;
  danger?: boolean;
  /** Runs when confirmed; an ApiError is shown in the dialog, which stays open. */
  run: () => Promise<unknown>;
  /** A word to type first, for what cannot be undone. */
  word?: string;
};

const question = signal<Question | null>(null);

/** Asks before something is destroyed. */
export function confirm(asked: Question): void {
  question.value = asked;
}

type Deletion = { what: string; verb?: string; text: ComponentChildren; path: string; word?: string; then: () => void };

/** Asks before DELETE of a path, and goes on by `then`: "Delete this project?", "Revoke this token?". */
export function askDelete({ what, verb = "Delete", text, path, word, then }: Deletion): void {
  const run = async (): Promise<void> => {
    await send("DELETE", path);
    then();
  };
  confirm({ title: `${verb} this ${what}?`, text: <p>{text}</p>, action: `${verb} ${what}`, danger: true, ...(word && { word }), run });
}

/** Runs an action; a failure becomes a toast with the API's words. */
export async function attempt(run: () => Promise<unknown>, done?: string): Promise<void> {
  try {
    await run();
    if (done) toast(done);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    toast(error.message, { hint: error.hint, failed: true });
  }
}

function Confirmation({ asked }: { asked: Question }) {
  const [busy, setBusy] = useState(false);
  const [typed, setTyped] = useState("");
  const [failure, setFailure] = useState<ApiError | null>(null);
  const close = (): void => {
    question.value = null;
  };
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    try {
      await asked.run();
      close();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setFailure(error);
    } finally {
      setBusy(false);
    }
  };
  const ready = !asked.word || typed === asked.word;
  return (
    <Dialog title={asked.title} onClose={close}>
      <form onSubmit={(event) => void submit(event)}>
        <div class="prose">{asked.text}</div>
        {asked.word && (
          <label class="field">
            <span>Type <code>{visible(asked.word)}</code> to confirm</span>
            <input value={typed} autoFocus autocomplete="off" onInput={(event) => setTyped(event.currentTarget.value)} />
          </label>
        )}
        {failure && <p class="failure" role="alert">{visible(failure.message)}{failure.hint && <small>{visible(failure.hint)}</small>}</p>}
        <footer>
          <button type="button" onClick={close}>Cancel</button>
          <button type="submit" class={asked.danger ? "danger" : "primary"} disabled={busy || !ready} autoFocus={!asked.word}>{asked.action}</button>
        </footer>
      </form>
    </Dialog>
  );
}

type Toast = { id: number; text: string; hint: string; failed: boolean };
const toasts = signal<Toast[]>([]);
let lastToast = 0;

/** Shows a sentence for some seconds; a failure stays until it is closed. */
export function toast(text: string, { hint = "", failed = false }: { hint?: string; failed?: boolean } = {}): void {
  const id = ++lastToast;
  toasts.value = [...toasts.value.slice(-3), { id, text, hint, failed }];
  if (!failed) setTimeout(() => dismiss(id), 5000);
}

function dismiss(id: number): void {
  toasts.value = toasts.value.filter((one) => one.id !== id);
}

/** What lies above the page; the frame has it once. */
export function Overlays() {
  return (
    <>
      {question.value && <Confirmation key={question.value.title} asked={question.value} />}
      <div class="toasts" role="status" aria-live="polite">
        {toasts.value.map((one) => (
          <div key={one.id} class={one.failed ? "toast failed" : "toast"}>
            <Icon name={one.failed ? "warning" : "check"} />
            <span>{visible(one.text)}{one.hint && <small>{visible(one.hint)}</small>}</span>
            <button type="button" class="quiet small" aria-label="Dismiss" onClick={() => dismiss(one.id)}><Icon name="cross" /></button>
          </div>
        ))}
      </div>
    </>
  );
}

/** A button that opens a menu; its items are buttons and links (`<MenuItem>`). */
export function Menu({ label, icon, words = true, children, class: name = "" }: { label: string; icon?: IconName; words?: boolean; children: ComponentChildren; class?: string }) {
  const id = useId();
  const button = useRef<HTMLButtonElement>(null);
  const panel = useRef<HTMLDivElement>(null);
  const place = (event: { newState: string }): void => {
    const [anchor, element] = [button.current, panel.current];
    if (event.newState !== "open" || !anchor || !element) return;
    const box = anchor.getBoundingClientRect();
    const { width, height } = element.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - width - 8);
    const below = box.bottom + 4;
    const top = below + height > innerHeight && box.top - height - 4 > 0 ? box.top - height - 4 : below;
    element.style.left = `${Math.max(8, left)}px`;
    element.style.top = `${top}px`;
    element.querySelector<HTMLElement>("[role^=menuitem]:not([disabled])")?.focus();
  };
  const onKey = (event: KeyboardEvent): void => {
    const items = [...(panel.current?.querySelectorAll<HTMLElement>("[role^=menuitem]:not([disabled])") ?? [])];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const end = { Home: 0, End: items.length - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    const from = items.indexOf(document.activeElement as HTMLElement);
    items[end ?? (from + (step ?? 0) + items.length) % items.length]?.focus();
  };
  return (
    <>
      <button ref={button} type="button" class={name} popoverTarget={id} aria-haspopup="menu" aria-label={words ? undefined : label} title={words ? undefined : label}>
        {icon && <Icon name={icon} />}
        {words && <>{label}<Icon name="down" /></>}
      </button>
      <div
        ref={panel}
        id={id}
        popover="auto"
        class="menu"
        role="menu"
        aria-label={label}
        onToggle={place}
        onKeyDown={onKey}
        onClick={(event) => {
          if ((event.target as Element).closest("[role^=menuitem]")) panel.current?.hidePopover();
        }}
      >
        {children}
      </div>
    </>
  );
}

type Item = { icon?: IconName; children: ComponentChildren; danger?: boolean; disabled?: boolean; title?: string };

export function MenuItem({ icon, children, danger = false, disabled = false, title, ...act }: Item & ({ href: string } | { onClick: () => void } | { checked: boolean; onClick: () => void })) {
  const content = (
    <>
      {"checked" in act ? <span class="menu-mark">{act.checked && <Icon name="check" />}</span> : icon && <Icon name={icon} />}
      <span>{children}</span>
    </>
  );
  const name = danger ? "danger" : "";
  if ("href" in act) return <a role="menuitem" href={act.href} class={name} title={title}>{content}</a>;
  return (
    <button type="button" role={"checked" in act ? "menuitemradio" : "menuitem"} aria-checked={"checked" in act ? act.checked : undefined} class={name} disabled={disabled} title={title} onClick={act.onClick}>
      {content}
    </button>
  );
}
