// What the build makes of JSX: `h` and `Fragment` are in scope of every module.
export { h, Fragment } from "preact";
