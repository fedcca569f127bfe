import { render } from "preact";
import { Frame } from "./app/frame";

const root = document.getElementById("app");
if (root) render(<Frame />, root);
