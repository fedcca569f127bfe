// Hostile text: names, messages and logs come from commits of other people.
//
// Characters that change the order or the look of what stands beside them are shown as escapes: bidi controls (a commit
// message could otherwise read as another one), control characters, and characters without width.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

export type Piece = { text: string; escape: boolean };

/** Splits a text into parts to show as they are and escapes of hidden characters. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = [];
  let from = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > from) found.push({ text: text.slice(from, match.index), escape: false });
    found.push({ text: escaped(match[0]), escape: true });
    from = match.index + match[0].length;
  }
  if (from < text.length) found.push({ text: text.slice(from), escape: false });
  return found;
}

/** The text for places that take no elements: tooltips, titles, labels. */
export function visible(text: string): string {
  return text.replace(HIDDEN, escaped);
}

function escaped(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\u{${code.toString(16)}}`;
}
