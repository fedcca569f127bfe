// Icons: 16 by 16, strokes in the colour of the text. An icon never stands alone: a word or a label is beside it.
const PATHS = {
  check: "M3 8.5l3.2 3.2L13 5",
  cross: "M4 4l8 8M12 4l-8 8",
  dash: "M4 8h8",
  clock: "M8 4.5V8l2.3 1.6M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z",
  running: "M8 2a6 6 0 0 1 6 6",
  pause: "M6 4v8M10 4v8",
  stop: "M5 5h6v6H5z",
  skip: "M4 4l5 4-5 4zM12 4v8",
  warning: "M8 6v3.2M8 11.4v.1M8 2.2L14.2 13H1.8z",
  question: "M6 6.2A2 2 0 1 1 8.6 8.1c-.4.2-.6.5-.6 1V9.5M8 11.6v.1",
  hand: "M5 8V4.5a1 1 0 0 1 2 0V7m0-3.2a1 1 0 0 1 2 0V7m0-2.5a1 1 0 0 1 2 0V9c0 3-1.2 5-3.7 5C5.6 14 4.8 12.8 3.5 10.3c-.6-1.1.6-1.9 1.5-.9",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3L14 14",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6zM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9",
  moon: "M13.5 9.7A6 6 0 0 1 6.3 2.5a6 6 0 1 0 7.2 7.2z",
  halfmoon: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 2v12",
  copy: "M6 6h7.5v7.5H6zM3.5 10h-1V2.5H10v1",
  link: "M6.8 9.2a2.6 2.6 0 0 0 3.7 0l2-2a2.6 2.6 0 0 0-3.7-3.7l-.6.6M9.2 6.8a2.6 2.6 0 0 0-3.7 0l-2 2a2.6 2.6 0 0 0 3.7 3.7l.6-.6",
  external: "M9 2.5h4.5V7M13.5 2.5L7.5 8.5M11.5 9.5v4h-9v-9h4",
  down: "M4 6.5l4 4 4-4",
  right: "M6.5 4l4 4-4 4",
  left: "M9.5 4l-4 4 4 4",
  up: "M4 9.5l4-4 4 4",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
  more: "M3.5 8h.1M8 8h.1M12.5 8h.1",
  key: "M5.5 6.5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM7.7 7.3L13 2M10.5 4.5l2 2",
  keyboard: "M1.5 4.5h13v7h-13zM4 7h.1M6.7 7h.1M9.4 7h.1M12 7h.1M5 9.5h6",
  filter: "M2.5 4h11M4.5 8h7M6.5 12h3",
  lock: "M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5",
  branch: "M5 5v6M5 5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM5 14a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM11 6.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM11 6.5c0 2.5-3 2.5-6 4",
  tag: "M2.5 2.5h5l6 6-5 5-6-6zM5.2 5.2h.1",
  pullrequest: "M4 5.5v5M4 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM4 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM12 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM12 10.5V6.5a2 2 0 0 0-2-2H7.5M9 2.5l-2 2 2 2",
  user: "M8 8.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2.5 14c.5-2.5 2.5-4 5.5-4s5 1.5 5.5 4",
  play: "M5 3.5l7.5 4.5L5 12.5z",
  restart: "M13 8a5 5 0 1 1-1.5-3.5M13 2.5v3h-3",
  download: "M8 2.5v8M4.5 7.5L8 11l3.5-3.5M3 13.5h10",
  upload: "M8 11V3M4.5 6L8 2.5 11.5 6M3 13.5h10",
  trash: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.6 9h5.8l.6-9M6.8 7v4M9.2 7v4",
  plus: "M8 3v10M3 8h10",
  info: "M8 7.2v3.8M8 5v.1M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z",
  disconnected: "M2 2l12 12M4.5 9.5a5 5 0 0 1 2-1.4M11.5 9.5a5 5 0 0 0-1-.8M2.5 7a8 8 0 0 1 2.2-1.5M13.5 7A8 8 0 0 0 8 4.5M8 12.5v.1",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, spin = false }: { name: IconName; spin?: boolean }) {
  return (
    <svg class={spin ? "icon spin" : "icon"} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
