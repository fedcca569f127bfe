/** A value of a document in a line. */
export function told(value: unknown): string {
  return value === undefined ? "–" : typeof value === "string" ? value || '""' : JSON.stringify(value);
}
