// A run at any moment of its history: the answer after one commit, and the commits that follow it.
import type { RunAnswer, RunCommit, RunHistoryAnswer } from "../../api/types";
import { changesOf, withChanges } from "./changes";

/** Every so many commits the answer is kept, so that a moment is at most as many changes away. */
const KEPT_EVERY = 100;

/** Whether a text is a position of the log, EPOCH/PARTITION/SEQUENCE. */
export function isPosition(text: string): boolean {
  return /^\d+\/\d+\/\d+$/.test(text);
}

function sequence(position: string): number {
  return Number(position.split("/")[2]);
}

export class Replay {
  readonly commits: RunCommit[] = [];
  /** Answers by the number of the commit that they are after. */
  readonly #kept = new Map<number, RunAnswer>();
  #last: { number: number; answer: RunAnswer } | null = null;

  /** Adds a part of the history that follows what is there. */
  add({ answer, commits }: Pick<RunHistoryAnswer, "answer" | "commits">): void {
    const first = commits[0];
    if (first && first.number === this.commits.length + 1) this.#kept.set(first.number, answer);
    for (const commit of commits) this.append(commit);
  }

  /** Begins anew: the answer after the first commit, which follows. */
  restart(answer: RunAnswer): void {
    this.commits.length = 0;
    this.#kept.clear();
    this.#kept.set(1, answer);
    this.#last = null;
  }

  /** Adds the next commit; one that is there already changes nothing. */
  append(commit: RunCommit): void {
    if (commit.number !== this.commits.length + 1) return;
    this.commits.push(commit);
  }

  get count(): number {
    return this.commits.length;
  }

  /** The answer after the commit with this number, from 1. */
  after(number: number): RunAnswer | undefined {
    if (number < 1 || number > this.count) return undefined;
    let from = 0;
    let answer: RunAnswer | undefined;
    if (this.#last && this.#last.number <= number) ({ number: from, answer } = this.#last);
    for (let at = number; at > from; at -= 1) {
      const kept = this.#kept.get(at);
      if (!kept) continue;
      [from, answer] = [at, kept];
      break;
    }
    if (!answer) return undefined;
    let own = new Set<unknown>();
    while (from < number) {
      const commit = this.commits[from] as RunCommit;
      answer = withChanges<RunAnswer>(answer, changesOf(commit), commit.removals, own);
      from += 1;
      if (from % KEPT_EVERY !== 0) continue;
      this.#kept.set(from, answer);
      own = new Set();
    }
    this.#last = { number, answer };
    return answer;
  }

  /** The number of the last commit at a position or time of the log; 0 before the first one, null for another text. */
  numberAt(text: string): number | null {
    if (isPosition(text)) return this.#lastBefore((commit) => sequence(commit.position) <= sequence(text));
    const time = Date.parse(text);
    if (Number.isNaN(time) || !/\d{2}:\d{2}/.test(text)) return null;
    return this.#lastBefore((commit) => Date.parse(commit.time) <= time);
  }

  #lastBefore(within: (commit: RunCommit) => boolean): number {
    let found = 0;
    for (const commit of this.commits) if (within(commit)) found = commit.number;
    return found;
  }
}
