// Long lists: the first rows at once, the others while the browser has time, and only those again that changed.
import { Component, type ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

const FIRST = 150;
const STEP = 500;

/** How many of `total` rows to show now: all of them soon, so that the browser's own find sees each. */
export function useGrowing(total: number): number {
  const [shown, setShown] = useState(FIRST);
  useEffect(() => {
    if (shown >= total) return;
    const timer = setTimeout(() => setShown(shown + STEP), 0);
    return () => clearTimeout(timer);
  }, [shown, total]);
  return Math.min(shown, total);
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
