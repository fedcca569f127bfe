// The rows of long lists: above a number of them only those in sight are in the document.
import { Component, type ComponentChildren, type RefObject } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

/** Up to so many rows are all in the document, for the browser's own find. */
export const MANY = 300;
/** Rows beside those in sight, so that Tab and a turn of the wheel find the next ones there. */
const BESIDE = 20;
/** Rows before the height of the view is known. */
const AT_FIRST = 40;

/** A row by its index, or the room of rows that are not in the document. */
export type Place = { row: number } | { from: number; gap: number };

export type Rows = {
  places: readonly Place[];
  /** Height of the room of `gap` rows, as a length of CSS. */
  room: (gap: number) => string;
  /** What the element that scrolls takes; its rows bear `data-row` with their index. */
  view: { ref: RefObject<HTMLDivElement | null>; onScroll: () => void; onFocusIn: (event: FocusEvent) => void };
};

/** The rows of a list to show now; the row `chosen` comes into sight when it becomes another one. */
export function useRows(total: number, chosen: number): Rows {
  const ref = useRef<HTMLDivElement>(null);
  const [sight, setSight] = useState({ first: 0, last: AT_FIRST, height: 28 });
  // The row with the focus stays in the document, wherever the view goes.
  const [focused, setFocused] = useState(-1);
  const look = (): void => {
    const view = ref.current;
    if (!view || total <= MANY) return;
    const height = view.querySelector("[data-row]")?.getBoundingClientRect().height || sight.height;
    // In steps, so that not every frame of a scroll renders.
    const first = 10 * Math.floor(view.scrollTop / height / 10);
    const last = first + 10 * Math.ceil(view.clientHeight / height / 10 + 1);
    if (first !== sight.first || last !== sight.last || height !== sight.height) setSight({ first, last, height });
  };
  const latest = useRef(look);
  latest.current = look;
  useEffect(() => {
    if (!ref.current) return;
    const observer = new ResizeObserver(() => latest.current());
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, [total > MANY]);
  const before = useRef(chosen);
  useEffect(() => {
    if (before.current === chosen) return;
    before.current = chosen;
    const view = ref.current;
    if (!view || chosen < 0) return;
    const row = view.querySelector(`[data-row="${chosen}"]`);
    if (row) row.scrollIntoView({ block: "nearest" });
    else view.scrollTop = chosen * sight.height - view.clientHeight / 2;
  }, [chosen]);
  const places = useMemo(() => placesOf(total, sight.first - BESIDE, sight.last + BESIDE, focused), [total, sight.first, sight.last, focused]);
  return {
    places,
    room: (gap) => `${gap * sight.height}px`,
    view: {
      ref,
      onScroll: look,
      onFocusIn: (event) => setFocused(Number((event.target as Element).closest<HTMLElement>("[data-row]")?.dataset.row ?? -1)),
    },
  };
}

function placesOf(total: number, first: number, last: number, focused: number): Place[] {
  const shown = (row: number): boolean => total <= MANY || (row >= first && row < last) || row === focused;
  const found: Place[] = [];
  for (let row = 0; row < total; row += 1) {
    const end = found.at(-1);
    if (shown(row)) found.push({ row });
    else if (end && "gap" in end) end.gap += 1;
    else found.push({ from: row, gap: 1 });
  }
  return found;
}

/** Shows `render(props)`, again only when a property has another value. */
export class Unless<P extends object> extends Component<{ same: P; render: (props: P) => ComponentChildren }> {
  override shouldComponentUpdate(next: { same: P }): boolean {
    const names = Object.keys(next.same) as (keyof P)[];
    return names.some((name) => next.same[name] !== this.props.same[name]);
  }

  override render(): ComponentChildren {
    return this.props.render(this.props.same);
  }
}
