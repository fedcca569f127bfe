// The format of server-sent events, as bytes arrive.

export type StreamEvent = { id: string; event: string; data: string };

/** Collects text until an event is whole. */
export class EventParser {
  #rest = "";
  #data: string[] = [];
  #event = "";
  /** The id of the last event: where a stream resumes. */
  id: string;

  constructor(id = "") {
    this.id = id;
  }

  /** Takes the next text; returns the events that it completes. */
  feed(text: string): StreamEvent[] {
    const found: StreamEvent[] = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) found.push({ id: this.id, event: this.#event || "message", data: this.#data.join("\n") });
        this.#data = [];
        this.#event = "";
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") this.#data.push(value);
      else if (field === "event") this.#event = value;
      else if (field === "id" && !value.includes("\0")) this.id = value;
    }
    return found;
  }
}
