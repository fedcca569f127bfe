// Bytes of a followed log as lines.

export type Line = {
  /** From 0. */
  number: number;
  /** Where it begins in the log, in bytes; -1 where that is unknown. */
  offset: number;
  time: string | null;
  text: string;
  /** Whether it is longer than what is shown. */
  cut: boolean;
};

/** Makes lines of the bytes of a log, as they arrive. */
export class LineParser {
  readonly #decoder = new TextDecoder();
  #rest = "";
  number: number;

  /** `number` is that of the line which begins with the first byte. */
  constructor(number: number) {
    this.number = number;
  }

  /** The lines that the bytes complete; then the line that is not complete, if it has a beginning. */
  feed(bytes: Uint8Array): { lines: Line[]; open: Line | null } {
    const texts = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = texts.pop() ?? "";
    const lines = texts.map((text, index) => this.#line(this.number + index, text.replace(/\r$/, "")));
    this.number += texts.length;
    return { lines, open: this.#rest ? this.#line(this.number, this.#rest) : null };
  }

  #line(number: number, text: string): Line {
    const cut = text.length > MAX_SHOWN;
    return { number, offset: -1, time: null, text: cut ? text.slice(0, MAX_SHOWN) : text, cut };
  }
}

/** Characters of a line that are shown, as many as the API sends of one. */
const MAX_SHOWN = 64 << 10;
