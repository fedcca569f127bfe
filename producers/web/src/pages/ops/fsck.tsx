// The check of every row of the database, and of the archive, against the log.
import { ApiError, send } from "../../api/client";
import { useGet } from "../../api/resource";
import type { FsckState } from "../../api/types";
import { query, setQuery } from "../../app/router";
import { Icon } from "../../components/icon";
import { attempt } from "../../components/overlay";
import { Empty, Failure, Note, Skeleton } from "../../components/parts";
import { Mono } from "../../components/text";
import { Ago } from "../../components/time";
import { counted } from "../../text/time";
import { useEvery } from "./every";

export function Fsck() {
  // Without one that was begun there is nothing to read.
  const begun = query.value.has("begun");
  const check = useGet<FsckState>(begun ? "/fsck" : null);
  const state = check.data.value;
  const error = check.error.value;
  const running = state !== undefined && state.result === null && state.error === null;
  useEvery(running ? 1000 : null, check.reload);
  const begin = (): Promise<void> =>
    attempt(async () => {
      try {
        await send("POST", "/fsck", {});
      } catch (error) {
        if (!(error instanceof ApiError && error.code === "fsckRuns")) throw error;
      }
      if (begun) check.reload();
      else setQuery({ begun: true });
    });
  return (
    <>
      <p class="tools"><span class="faint">The log is read from its start and folded; each row must be what the events say. Runs go on meanwhile.</span><button type="button" class="primary push" disabled={running} onClick={() => void begin()}>Check now</button></p>
      {error && error.status !== 404 ? <Failure error={error} retry={check.reload} /> : state ? <Shown check={state} /> : begun && check.loading.value ? <Skeleton lines={2} /> : <Empty title="No check has been begun here" />}
    </>
  );
}

function Shown({ check: { begun, progress, result, error } }: { check: FsckState }) {
  if (error?.[0]) return <Note icon="warning" tone="failed"><p>{String(error[0].message)}</p><p class="faint">{String(error[0].hint ?? "")}</p></Note>;
  if (!result) {
    return <div class="tools" role="status"><Icon name="running" spin /><span>{progress ? `${progress.step}: ${progress.done.toLocaleString("en")} of ${progress.total.toLocaleString("en")}` : "begins"}</span><progress {...(progress?.total ? { value: progress.done, max: progress.total } : {})} /></div>;
  }
  return (
    <>
      <Note icon={result.count ? "warning" : "check"} tone={result.count ? "failed" : "running"}>
        {result.count ? `${counted(result.count, "difference")} from the log` : "Every row is what the log says"}: {counted(result.commits, "commit")}, {counted(result.rows, "row")}, checked <Ago at={begun} />.
      </Note>
      {result.differences.length > 0 && <ul class="entries">{result.differences.map((one) => <li key={one}><Mono value={one} /></li>)}</ul>}
    </>
  );
}
