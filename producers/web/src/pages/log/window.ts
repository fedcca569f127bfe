// The part of a log that is in the document: successive lines, read at either end as the reader gets there.
//
// A log of up to ALL lines is in it as a whole, so that the browser's own find sees every line. Of a longer one, a
// window moves: lines far above and below the reader leave the document.
import { ApiError } from "../../api/client";
import { followBytes, firstAfter, lastLine, readLines, BATCH, type LogKey } from "./lines";
import { LineParser, type Line } from "./line-parser";
import { rowOf, START, type Context } from "./rows";

export const ALL = 20_000;
const WINDOW = 4000;
/** How near to an edge of the window a reader is, in heights of the view, when more is read. */
const NEAR = 3;
const RETRY_MS = [1000, 2000, 4000, 8000];

export type Status = {
  /** Lines of the log as far as it is known. */
  total: number;
  first: number;
  last: number;
  /** Whether new lines are shown as they come. */
  following: boolean;
  ended: boolean;
  pinned: boolean;
  empty: boolean;
  lost: boolean;
  error: ApiError | null;
};

export class LogWindow {
  readonly #abort = new AbortController();
  #first = 0;
  #last = 0;
  #total = 0;
  #below: Context = START;
  #open: HTMLElement | null = null;
  #reading = false;
  #pinned = true;
  #ended: boolean;
  #lost = false;
  #loaded = false;
  #error: ApiError | null = null;
  /** Where the followed bytes go on. */
  #offset = 0;
  #parser = new LineParser(0);
  #arrived: Line[] = [];
  #arrivedOpen: Line | null = null;
  #frame = 0;
  #stream: AbortController | null = null;

  constructor(
    private readonly key: LogKey,
    private readonly view: HTMLElement,
    private readonly rows: HTMLElement,
    private readonly options: { ended: boolean; at: string | null; onStatus: (status: Status) => void },
  ) {
    this.#ended = options.ended || options.at !== null;
    view.addEventListener("scroll", this.#onScroll, { passive: true });
    document.addEventListener("visibilitychange", this.#onVisibility);
  }

  close(): void {
    this.#abort.abort();
    this.#stream?.abort();
    cancelAnimationFrame(this.#frame);
    this.view.removeEventListener("scroll", this.#onScroll);
    document.removeEventListener("visibilitychange", this.#onVisibility);
  }

  /** Shows the line, from 0; null: the end. */
  async open(line: number | null): Promise<void> {
    await this.#guarded(async () => {
      const last = await lastLine(this.key, this.#abort.signal).catch((error: unknown) => {
        // A step that has just begun has no log yet.
        if (error instanceof ApiError && error.status === 404 && !this.#ended) return undefined;
        throw error;
      });
      this.#total = last ? last.number + 1 : 0;
      if (this.options.at !== null) this.#total = await firstAfter(this.key, Date.parse(this.options.at), this.#total, this.#abort.signal);
      await this.#show(line);
      if (!this.#ended) this.#begin(last);
      if (this.#total <= ALL) await this.#fillAll();
    });
    this.#loaded = true;
    this.#say();
  }

  /** Goes to a line, from 0; null: the end. */
  async go(line: number | null): Promise<void> {
    await this.#guarded(() => this.#show(line));
  }

  row(line: number): HTMLElement | null {
    return this.rows.querySelector(`#L${line + 1}`);
  }

  /** Follows what is new from here on, at the end of the log. */
  pin(): void {
    void this.go(null);
  }

  async #show(line: number | null): Promise<void> {
    const wanted = line === null ? Math.max(0, this.#total - 1) : Math.min(Math.max(line, 0), Math.max(0, this.#total - 1));
    if (!(wanted >= this.#first && wanted < this.#last)) {
      const from = line === null ? Math.max(0, this.#total - BATCH) : Math.max(0, wanted - BATCH / 2);
      const lines = await readLines(this.key, from, Math.min(BATCH, this.#total - from), this.#abort.signal);
      this.rows.replaceChildren();
      this.#open = null;
      this.#first = this.#last = from;
      this.#below = START;
      this.#append(lines);
    }
    this.#pinned = line === null;
    if (line === null) this.view.scrollTop = this.view.scrollHeight;
    else this.row(wanted)?.scrollIntoView({ block: "center" });
    this.#say();
  }

  /** Reads what is missing of a log that is short enough to be in the document as a whole. */
  async #fillAll(): Promise<void> {
    while (this.#first > 0) await this.#above();
    while (this.#last < this.#total && this.#ended) await this.#beneath();
  }

  async #above(): Promise<void> {
    const from = Math.max(0, this.#first - BATCH);
    const lines = await readLines(this.key, from, this.#first - from, this.#abort.signal);
    const fragment = document.createDocumentFragment();
    let context = START;
    for (const line of lines) {
      const made = rowOf(line, context);
      ({ context } = made);
      fragment.append(made.row);
    }
    const before = this.view.scrollHeight - this.view.scrollTop;
    this.rows.prepend(fragment);
    this.#first = from;
    this.#trim("end");
    this.view.scrollTop = this.view.scrollHeight - before;
    this.#say();
  }

  async #beneath(): Promise<void> {
    this.#append(await readLines(this.key, this.#last, Math.min(BATCH, this.#total - this.#last), this.#abort.signal));
    this.#trim("start");
    this.#say();
  }

  #append(lines: readonly Line[]): void {
    this.#open?.remove();
    this.#open = null;
    const fragment = document.createDocumentFragment();
    for (const line of lines) {
      if (line.number !== this.#last) continue;
      const made = rowOf(line, this.#below);
      this.#below = made.context;
      fragment.append(made.row);
      this.#last += 1;
    }
    this.rows.append(fragment);
    this.#total = Math.max(this.#total, this.#last);
  }

  /** Takes rows out at an end when the log is longer than what may be in the document as a whole. */
  #trim(end: "start" | "end"): void {
    if (this.#total <= ALL) return;
    const excess = this.#last - this.#first - WINDOW;
    if (excess < BATCH) return;
    const range = document.createRange();
    const rows = this.rows.children;
    if (end === "start") {
      const before = this.view.scrollHeight - this.view.scrollTop;
      range.setStartBefore(rows[0] as Element);
      range.setEndAfter(rows[excess - 1] as Element);
      range.deleteContents();
      this.#first += excess;
      this.view.scrollTop = this.view.scrollHeight - before;
    } else {
      range.setStartBefore(rows[rows.length - excess] as Element);
      range.setEndAfter(rows[rows.length - 1] as Element);
      range.deleteContents();
      this.#open = null;
      this.#last -= excess;
      this.#below = START;
    }
  }

  readonly #onScroll = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = this.view;
    const toEnd = scrollHeight - scrollTop - clientHeight;
    const pinned = toEnd < 8 && this.#last >= this.#total;
    if (pinned !== this.#pinned) {
      this.#pinned = pinned;
      this.#say();
    }
    if (this.#reading) return;
    if (scrollTop < NEAR * clientHeight && this.#first > 0) void this.#guarded(() => this.#above());
    else if (toEnd < NEAR * clientHeight && this.#last < this.#total) void this.#guarded(() => this.#beneath());
  };

  async #guarded(read: () => Promise<void>): Promise<void> {
    this.#reading = true;
    try {
      await read();
      this.#error = null;
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.#error = error;
      this.#say();
    } finally {
      this.#reading = false;
    }
  }

  /** Follows the log from its last line on, which may not be complete. */
  #begin(last: Line | undefined): void {
    this.#offset = last?.offset ?? 0;
    this.#parser = new LineParser(last?.number ?? 0);
    if (last && this.#last === last.number + 1) {
      this.rows.lastElementChild?.remove();
      this.#last -= 1;
      this.#total -= 1;
    }
    void this.#follow();
  }

  async #follow(): Promise<void> {
    for (let failures = 0; !this.#abort.signal.aborted && !this.#ended; ) {
      if (document.hidden) return;
      const stream = (this.#stream = new AbortController());
      try {
        await followBytes(this.key, this.#offset, (bytes) => this.#take(bytes), stream.signal);
        this.#ended = true;
        this.#lost = false;
      } catch (error) {
        if (stream.signal.aborted || this.#abort.signal.aborted) return;
        if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 404) {
          this.#error = error;
          this.#say();
          return;
        }
        this.#lost = true;
        this.#say();
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]));
        failures += 1;
      }
    }
    this.#schedule();
  }

  readonly #onVisibility = (): void => {
    if (document.hidden) this.#stream?.abort();
    else if (!this.#ended && this.#loaded) void this.#follow();
  };

  #take(bytes: Uint8Array): void {
    this.#offset += bytes.length;
    this.#lost = false;
    const { lines, open } = this.#parser.feed(bytes);
    this.#arrived.push(...lines);
    this.#arrivedOpen = open;
    this.#schedule();
  }

  #schedule(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** Shows what arrived since the last frame: nothing of it while the reader is elsewhere in a long log. */
  #draw(): void {
    const lines = this.#arrived.splice(0, 2 * BATCH);
    const joins = this.#last === (lines[0]?.number ?? this.#parser.number);
    if (joins && (this.#pinned || this.#last - this.#first < ALL)) {
      this.#append(lines);
      if (this.#pinned) this.#trim("start");
    }
    this.#total = Math.max(this.#total, (lines.at(-1)?.number ?? -1) + 1);
    this.#open?.remove();
    this.#open = null;
    const open = this.#arrived.length ? null : this.#arrivedOpen;
    if (open && open.number === this.#last) {
      this.#open = rowOf(open, this.#below).row;
      this.rows.append(this.#open);
    }
    if (this.#pinned) this.view.scrollTop = this.view.scrollHeight;
    if (this.#arrived.length) this.#schedule();
    this.#say();
  }

  #say(): void {
    this.options.onStatus({
      total: this.#total,
      first: this.#first,
      last: this.#last,
      following: !this.#ended,
      ended: this.#ended,
      pinned: this.#pinned,
      empty: this.#loaded && this.#total === 0 && !this.#open && this.#ended,
      lost: this.#lost,
      error: this.#error,
    });
  }
}
