// Export to a file, import of one with its progress, and the epochs of the log.
import { useRef, useState } from "preact/hooks";
import { API, ApiError, request } from "../../api/client";
import { useGet } from "../../api/resource";
import { queryOf } from "../../app/router";
import { Icon } from "../../components/icon";
import { confirm } from "../../components/overlay";
import { Failure, Loaded, Note } from "../../components/parts";
import { Text } from "../../components/text";
import { Ago } from "../../components/time";
import { bytes, counted } from "../../text/time";

export function Snapshots() {
  const epochs = useGet<readonly Epoch[]>("/epochs/runs");
  return (
    <>
      <Export />
      <Import done={epochs.reload} />
      <section class="block">
        <h2>Epochs</h2>
        <p class="faint">Each import begins an epoch. <code>runstream epochs activate</code> goes back to an earlier one.</p>
        <Loaded of={epochs} lines={2}>{(found) => <EpochTable found={found} />}</Loaded>
      </section>
    </>
  );
}

type Epoch = { epoch: number; current: boolean; state: string; commits: number; created: string; origin: string };

function EpochTable({ found }: { found: readonly Epoch[] }) {
  return (
    <table>
      <thead><tr><th class="number">Epoch</th><th>State</th><th>Imported from</th><th class="number">Commits</th><th class="number">Created</th></tr></thead>
      <tbody>
        {found.map((one) => (
          <tr key={one.epoch}>
            <td class="number">{one.epoch}</td>
            <td>{one.current ? <strong>current</strong> : one.state}</td>
            <td class="grow"><Text value={one.origin || "–"} /></td>
            <td class="number">{one.commits.toLocaleString("en")}</td>
            <td class="number"><Ago at={one.created} /></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Export() {
  const [logs, setLogs] = useState(false);
  const [archives, setArchives] = useState(false);
  const [service, setService] = useState("");
  const include = [logs && "logs", archives && "archives"].filter(Boolean).join(",");
  const path = `${API}/export${service && `/${service}`}?${queryOf({ with: service === "config" ? "" : include })}`;
  return (
    <section class="block">
      <h2>Export</h2>
      <p class="faint">The whole log as one file, while runs go on. <code>runstream snapshot verify</code> checks it without a server. Secrets in it are sealed.</p>
      <p class="tools">
        <label class="check">Of <select value={service} aria-label="Service to export" onChange={(event) => setService(event.currentTarget.value)}><option value="">everything</option><option value="runs">runs</option><option value="config">projects and people</option></select></label>
        <label class="check"><input type="checkbox" checked={logs} disabled={service === "config"} onChange={(event) => setLogs(event.currentTarget.checked)} /> with logs of steps</label>
        <label class="check"><input type="checkbox" checked={archives} disabled={service === "config"} onChange={(event) => setArchives(event.currentTarget.checked)} /> with workspaces</label>
        <a class="button" href={path} download="runstream.snapshot" target="_blank"><Icon name="download" />Download</a>
      </p>
    </section>
  );
}

type Imported = { dry: boolean; commits: number; runs: number };
type Progress = { step?: string; done?: number; total?: number };

function Import({ done }: { done: () => void }) {
  const [progress, setProgress] = useState<Progress | null>(null);
  const [failure, setFailure] = useState<ApiError | null>(null);
  const [result, setResult] = useState<Imported | null>(null);
  const [file, setFile] = useState<File | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const run = async (dry: boolean): Promise<void> => {
    if (!file) return;
    setFailure(null);
    setResult(null);
    setProgress({ step: "sending" });
    try {
      const response = await request("POST", "/import", { query: { name: file.name, dry_run: dry }, headers: { Accept: LINES, "Content-Type": SNAPSHOT }, body: file });
      const last = await lastLine(response, setProgress);
      if (Array.isArray(last.error) && last.error[0]) {
        const [error] = last.error as { code: string; message: string; hint: string }[];
        throw new ApiError(400, error?.code ?? "", error?.message ?? "the import failed", error?.hint ?? "");
      }
      setResult(last.result as Imported);
      done();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setFailure(error);
    } finally {
      setProgress(null);
    }
  };
  return (
    <section class="block">
      <h2>Import</h2>
      <p class="faint">Replaces the log by that of a file. The services in the file must be in maintenance. The log before it stays, as an epoch.</p>
      <p class="tools">
        <input ref={input} type="file" aria-label="Snapshot file" onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)} />
        <button type="button" disabled={!file || progress !== null} onClick={() => void run(true)}>Check the file</button>
        <button type="button" class="danger" disabled={!file || progress !== null} onClick={() => confirm({ title: "Import this file?", text: <p>The log of this service is replaced by {file?.name} ({bytes(file?.size ?? 0)}).</p>, action: "Import", danger: true, word: "import", run: () => {
          void run(false);
          return Promise.resolve();
        } })}><Icon name="upload" />Import…</button>
      </p>
      {progress && (
        <div role="status" class="tools">
          <Icon name="running" spin /><span>{progress.step ?? "importing"}{progress.total ? `: ${progress.done?.toLocaleString("en")} of ${counted(progress.total, "commit")}` : ""}</span>
          <progress {...(progress.total ? { value: progress.done ?? 0, max: progress.total } : {})} />
        </div>
      )}
      {failure && <Failure error={failure} />}
      {result && <Note icon="check" tone="running">{result.dry ? "The file can be imported" : "The file is imported"}: {counted(result.commits, "commit")}, {counted(result.runs, "run")}.</Note>}
    </section>
  );
}

const LINES = "application/x-ndjson";
const SNAPSHOT = "application/x-tar";

/** Reads lines of JSON; reports each, and returns the last one. */
async function lastLine(response: Response, report: (progress: Progress) => void): Promise<Record<string, unknown>> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let last: Record<string, unknown> = {};
  while (reader) {
    const { done, value } = await reader.read();
    rest += decoder.decode(value, { stream: !done });
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines.filter(Boolean)) {
      last = JSON.parse(line) as Record<string, unknown>;
      report((last.progress ?? last) as Progress);
    }
    if (done) return last;
  }
  return last;
}
