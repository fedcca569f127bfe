// The part of a log that is in the document: successive lines, read at either end as the reader gets there.
//
// A log of up to ALL lines is in it as a whole, so that the browser's own find sees every line. Of a longer one, a
// window moves: lines far above and below the reader leave the document.
//
// Rows lie in parts. What the browser does in each frame grows with the number of boxes that it may skip, so parts are
// skipped as a whole (`content-visibility`); and what the page adds and removes in one frame is bounded, however fast a
// log grows.
import { ApiError } from "../../api/client";
import { followBytes, firstAfter, lastLine, readLines, BATCH, type LogKey } from "./lines";
import { LineParser, type Line } from "./line-parser";
import { rowOf, START, type Context } from "./rows";

export const ALL = 20_000;
const WINDOW = 4000;
/** Rows of a part. */
const PART = 100;
/** Rows that one frame adds, and parts that it removes, at most. */
const MAX_ADDED = 250;
const MAX_REMOVED = 10;
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
  /** The last part, and how many rows it has without the open one. */
  #part: HTMLElement | null = null;
  #held = 0;
  #reading = false;
  #pinned = true;
  #ended: boolean;
  #lost = false;
  #loaded = false;
  #error: ApiError | null = null;
  /** Where the followed bytes go on. */
  #offset = 0;
  #parser = new LineParser(0);
  /** The followed lines that are not in the document: successive ones, up to the last one. */
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
      if (!this.#ended) this.#followFrom(last);
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
      this.#begin(from);
      this.#append(lines);
    }
    this.#pinned = line === null;
    if (line === null) this.view.scrollTop = this.view.scrollHeight;
    else this.row(wanted)?.scrollIntoView({ block: "center" });
    this.#say();
  }

  /** Empties the window; its first line is the next one that is appended. */
  #begin(line: number): void {
    this.rows.replaceChildren();
    this.#open = this.#part = null;
    this.#first = this.#last = line;
    this.#below = START;
  }

  /** Reads what is missing of a log that is short enough to be in the document as a whole. */
  async #fillAll(): Promise<void> {
    while (this.#first > 0 && this.#total <= ALL) await this.#above();
    while (this.#last < this.#total && this.#ended) await this.#beneath();
  }

  async #above(): Promise<void> {
    const first = this.#first;
    const from = Math.max(0, first - BATCH);
    const lines = await readLines(this.key, from, first - from, this.#abort.signal);
    // Meanwhile frames may have moved the window of a log that is followed: these lines are not the next ones then.
    if (this.#first !== first) return;
    const fragment = document.createDocumentFragment();
    let context = START;
    for (let at = 0; at < lines.length; at += PART) {
      const part = newPart();
      for (const line of lines.slice(at, at + PART)) {
        const made = rowOf(line, context);
        ({ context } = made);
        part.append(made.row);
      }
      sized(part);
      fragment.append(part);
    }
    const before = this.view.scrollHeight - this.view.scrollTop;
    this.rows.prepend(fragment);
    this.#first = from;
    this.view.scrollTop = this.view.scrollHeight - before;
    this.#trim("end");
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
    const grown = new Set<HTMLElement>();
    for (const line of lines) {
      if (line.number !== this.#last) continue;
      const made = rowOf(line, this.#below);
      this.#below = made.context;
      const part = this.#lastPart();
      part.append(made.row);
      grown.add(part);
      this.#held += 1;
      this.#last += 1;
    }
    grown.forEach(sized);
    this.#total = Math.max(this.#total, this.#last);
  }

  /** The part that takes the next row. */
  #lastPart(): HTMLElement {
    if (!this.#part || this.#held >= PART) {
      this.#part = newPart();
      this.#held = 0;
      this.rows.append(this.#part);
    }
    return this.#part;
  }

  /** Takes parts out at an end when the log is longer than what may be in the document as a whole; true if more should go. */
  #trim(end: "start" | "end"): boolean {
    if (this.#total <= ALL || (end === "end" && this.#pinned)) return false;
    const before = this.view.scrollHeight - this.view.scrollTop;
    for (let removed = 0; this.#last - this.#first >= WINDOW + BATCH; removed += 1) {
      if (removed === MAX_REMOVED) return true;
      const part = end === "start" ? this.rows.firstElementChild : this.rows.lastElementChild;
      if (!part) break;
      part.remove();
      if (end === "start") this.#first += part.childElementCount;
      else {
        this.#last -= part === this.#part ? this.#held : part.childElementCount;
        this.#open = this.#part = null;
        this.#below = START;
      }
    }
    if (end === "start" && !this.#pinned) this.view.scrollTop = this.view.scrollHeight - before;
    return false;
  }

  readonly #onScroll = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = this.view;
    const toEnd = scrollHeight - scrollTop - clientHeight;
    const pinned = toEnd < 8 && (this.#last >= this.#total || this.#joins);
    if (pinned !== this.#pinned) {
      this.#pinned = pinned;
      this.#say();
    }
    if (this.#reading) return;
    if (scrollTop < NEAR * clientHeight && this.#first > 0) void this.#guarded(() => this.#above());
    else if (toEnd < NEAR * clientHeight && this.#last < this.#total && !this.#joins) void this.#guarded(() => this.#beneath());
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
  #followFrom(last: Line | undefined): void {
    this.#offset = last?.offset ?? 0;
    this.#parser = new LineParser(last?.number ?? 0);
    if (last && this.#last === last.number + 1) {
      this.#part?.lastElementChild?.remove();
      this.#held -= 1;
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
    for (const line of lines) this.#arrived.push(line);
    this.#arrivedOpen = open;
    this.#total = Math.max(this.#total, this.#parser.number);
    this.#schedule();
  }

  #schedule(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** Whether the lines that arrived go on where the window ends. */
  get #joins(): boolean {
    const from = this.#arrived[0]?.number ?? this.#parser.number;
    return from <= this.#last && this.#last <= this.#parser.number;
  }

  /** Shows what arrived, a part of it in each frame: nothing of it while the reader is elsewhere in a long log. */
  #draw(): void {
    const long = this.#total > ALL;
    if (long && this.#arrived.length > WINDOW) {
      // Faster than the frames: a reader at the end sees the last lines of it, and finds the others above.
      this.#arrived.splice(0, this.#arrived.length - (this.#pinned ? BATCH : WINDOW));
      if (this.#pinned) this.#begin(this.#arrived[0]?.number ?? 0);
    }
    let more = false;
    if (this.#joins && (this.#pinned || !long)) {
      const known = this.#last - (this.#arrived[0]?.number ?? this.#last);
      this.#append(this.#arrived.splice(0, known + MAX_ADDED));
      more = this.#arrived.length > 0;
      if (this.#pinned) more = this.#trim("start") || more;
    }
    this.#open?.remove();
    this.#open = null;
    const open = this.#arrivedOpen;
    if (open && open.number === this.#last) {
      this.#open = rowOf(open, this.#below).row;
      this.#lastPart().append(this.#open);
    }
    if (this.#pinned) this.view.scrollTop = this.view.scrollHeight;
    if (more) this.#schedule();
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

function newPart(): HTMLElement {
  const part = document.createElement("div");
  part.className = "log-part";
  return part;
}

/** Says how high a part is while it is skipped, if it never was drawn. */
function sized(part: HTMLElement): void {
  part.style.containIntrinsicHeight = `auto ${part.childElementCount * 1.25}rem`;
}
