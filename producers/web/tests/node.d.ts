// What the tests use of Node.
declare module "node:test" {
  export function test(name: string, run: () => void | Promise<void>): void;
}
declare module "node:assert/strict" {
  const assert: {
    ok(value: unknown, message?: string): asserts value;
    equal(found: unknown, expected: unknown, message?: string): void;
    deepEqual(found: unknown, expected: unknown, message?: string): void;
    match(found: string, expected: RegExp, message?: string): void;
    throws(run: () => unknown): void;
  };
  export default assert;
}
declare module "node:crypto" {
  type Hash = { update(text: string): Hash; digest(encoding: "hex"): string };
  export function createHash(name: "sha256"): Hash;
}
