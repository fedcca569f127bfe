// Dialogs that ask for some fields and send them; the API's refusal is shown in the dialog, which stays open.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { ApiError } from "../api/client";
import { visible } from "../text/safe";
import { Dialog } from "./overlay";

export type Field = {
  name: string;
  label: string;
  hint?: string;
  value?: string;
  optional?: boolean;
} & ({ kind?: "text" | "password" | "lines" | "date" | "check"; options?: never } | { kind: "choice"; options: readonly { value: string; label: string }[] });

export type Form = {
  title: string;
  /** The verb of the button: "Create project". */
  action: string;
  fields: readonly Field[];
  text?: ComponentChildren;
  /** Sends the values; what it returns is shown in place of the fields, such as a token that is shown once. */
  run: (values: Record<string, string>) => Promise<ComponentChildren | void>;
};

const form = signal<Form | null>(null);

/** Asks for the fields of a form. */
export function ask(asked: Form): void {
  form.value = asked;
}

/** The form that is asked for; the frame has it once. */
export function Forms() {
  return form.value && <Asked key={form.value.title} form={form.value} />;
}

function Asked({ form: asked }: { form: Form }) {
  const [values, setValues] = useState<Record<string, string>>(Object.fromEntries(asked.fields.map((one) => [one.name, one.value ?? (one.kind === "choice" ? (one.options[0]?.value ?? "") : "")])));
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<ApiError | null>(null);
  const [result, setResult] = useState<ComponentChildren>(null);
  const close = (): void => {
    form.value = null;
  };
  const submit = async (): Promise<void> => {
    setBusy(true);
    setFailure(null);
    try {
      const answer = await asked.run(values);
      if (answer) setResult(answer);
      else close();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setFailure(error);
    } finally {
      setBusy(false);
    }
  };
  if (result) {
    return (
      <Dialog key="result" title={asked.title} onClose={close}>
        <div class="prose">{result}</div>
        <footer class="dialog-foot"><button type="button" class="primary" autoFocus onClick={close}>Done</button></footer>
      </Dialog>
    );
  }
  const change = (name: string, value: string): void => setValues({ ...values, [name]: value });
  return (
    <Dialog title={asked.title} onClose={close}>
      <form onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}>
        {asked.text && <div class="prose">{asked.text}</div>}
        {asked.fields.map((field, index) => <Input key={field.name} field={field} value={values[field.name] ?? ""} focused={index === 0} onChange={(value) => change(field.name, value)} />)}
        {failure && <p class="failure" role="alert">{visible(failure.message)}{failure.hint && <small>{visible(failure.hint)}</small>}</p>}
        <footer><button type="button" onClick={close}>Cancel</button><button type="submit" class="primary" disabled={busy}>{asked.action}</button></footer>
      </form>
    </Dialog>
  );
}

function Input({ field, value, focused, onChange }: { field: Field; value: string; focused: boolean; onChange: (value: string) => void }) {
  const given = { name: field.name, required: !field.optional, autoFocus: focused };
  if (field.kind === "check") {
    return <label class="check"><input type="checkbox" checked={value === "yes"} onChange={(event) => onChange(event.currentTarget.checked ? "yes" : "")} /> <span>{field.label}{field.hint && <small class="faint"> {field.hint}</small>}</span></label>;
  }
  return (
    <label class="field">
      <span>{field.label}{field.optional && <small class="faint"> (optional)</small>}</span>
      {field.kind === "choice" ? (
        <select {...given} value={value} onChange={(event) => onChange(event.currentTarget.value)}>{field.options.map((one) => <option key={one.value} value={one.value}>{one.label}</option>)}</select>
      ) : field.kind === "lines" ? (
        <textarea {...given} value={value} spellcheck={false} onInput={(event) => onChange(event.currentTarget.value)} />
      ) : (
        <Line {...given} kind={field.kind ?? "text"} value={value} onChange={onChange} />
      )}
      {field.hint && <small>{field.hint}</small>}
    </label>
  );
}

function Line({ kind, value, onChange, ...given }: { kind: "text" | "password" | "date"; value: string; onChange: (value: string) => void; name: string; required: boolean; autoFocus: boolean }) {
  const all = { ...given, value, autocomplete: "off" as const, spellcheck: false, onInput: (event: { currentTarget: HTMLInputElement }) => onChange(event.currentTarget.value) };
  if (kind === "password") return <input {...all} type="password" />;
  return kind === "date" ? <input {...all} type="date" /> : <input {...all} type="text" />;
}
