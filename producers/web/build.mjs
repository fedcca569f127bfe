// Builds the page into ../runstream/gateway/page: the same bytes from the same sources, on every machine.
//
// `--watch` builds again on every change, with a source map and without minification; do not commit that.
// `--check` builds into memory and compares with the files that are there.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";
import { minify } from "terser";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "runstream", "gateway", "page");
const SOURCES = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json", "src"];
const BUNDLED = ["preact", "@preact/signals", "@preact/signals-core"];

const watching = process.argv.includes("--watch");
const checking = process.argv.includes("--check");

/** @type {esbuild.BuildOptions} */
const options = {
  absWorkingDir: here,
  entryPoints: { main: "src/main.tsx", style: "src/styles/main.css" },
  outdir: "out/assets",
  bundle: true,
  format: "esm",
  target: ["es2022", "chrome125", "firefox128", "safari18"],
  // light-dark() and nesting reach the browser as they are written: all of these know them.
  supported: { nesting: true },
  minify: !watching,
  sourcemap: watching ? "inline" : false,
  legalComments: "none",
  charset: "utf8",
  // Children as arguments are shorter than as a property of each element.
  tsconfigRaw: { compilerOptions: { strict: true, target: "ES2024", verbatimModuleSyntax: true } },
  jsx: "transform",
  jsxFactory: "h",
  jsxFragment: "Fragment",
  inject: [join(here, "src", "jsx.ts")],
  write: false,
  logLevel: "warning",
};

/** A script of esbuild, smaller: terser inlines and folds what esbuild leaves. */
async function smaller(contents) {
  if (watching) return Buffer.from(contents);
  const { code } = await minify(Buffer.from(contents).toString(), { module: true, ecma: 2020 });
  return Buffer.from(code);
}

async function files(place) {
  const found = [];
  for (const entry of await readdir(place, { withFileTypes: true })) {
    const path = join(place, entry.name);
    found.push(...(entry.isDirectory() ? await files(path) : [path]));
  }
  return found;
}

/** The hash of all sources, which the suite compares without Node; types leave nothing in the scripts. */
async function sourcesHash() {
  const paths = [];
  for (const name of SOURCES) {
    const path = join(here, name);
    paths.push(...(name === "src" ? await files(path) : [path]));
  }
  paths.splice(paths.indexOf(join(here, "src", "api", "types.ts")), 1);
  const lines = [];
  for (const path of paths) {
    const digest = createHash("sha256").update(await readFile(path)).digest("hex");
    lines.push(`${digest}  ${relative(here, path).split(sep).join("/")}\n`);
  }
  // By code unit, as Python sorts.
  lines.sort((a, b) => (a.slice(66) < b.slice(66) ? -1 : 1));
  return createHash("sha256").update(lines.join("")).digest("hex");
}

async function licenses() {
  const texts = [];
  for (const name of BUNDLED) {
    const folder = join(here, "node_modules", name);
    const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const license = (await readdir(folder)).find((one) => /^licen[cs]e/i.test(one));
    if (!license) throw new Error(`${name} has no license file`);
    texts.push(`${name} ${version}\n\n${(await readFile(join(folder, license), "utf8")).trim()}\n`);
  }
  return `The scripts in this folder contain these packages.\n\n${texts.join("\n----\n\n")}`;
}

function documentOf(names) {
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Runstream</title>
<link rel="icon" type="image/svg+xml" href="/ui/assets/${names.icon}">
<link rel="stylesheet" href="/ui/assets/${names.style}">
<script type="module" src="/ui/assets/${names.main}"></script>
</head>
<body>
<div id="app"></div>
<noscript><main class="plain"><h1>Runstream</h1>
<p>This page needs JavaScript. The command line shows the same:</p>
<pre>{command}</pre></main></noscript>
</body>
</html>
`;
}

/** Every built file by its path below the folder. */
async function built(result) {
  const found = new Map();
  const names = {};
  for (const file of result.outputFiles) {
    const script = file.path.endsWith(".js");
    const content = script ? await smaller(file.contents) : Buffer.from(file.contents);
    const [stem, ending] = script ? ["main", "js"] : ["style", "css"];
    const name = `${stem}-${createHash("sha256").update(content).digest("hex").slice(0, 8)}.${ending}`;
    found.set(`assets/${name}`, content);
    names[stem] = name;
  }
  const icon = await readFile(join(here, "src", "icon.svg"));
  names.icon = `icon-${createHash("sha256").update(icon).digest("hex").slice(0, 8)}.svg`;
  found.set(`assets/${names.icon}`, icon);
  found.set("index.html", Buffer.from(documentOf(names)));
  found.set("licenses.txt", Buffer.from(await licenses()));
  found.set("sources.sha256", Buffer.from(`${watching ? "watching" : await sourcesHash()}\n`));
  return found;
}

async function write(found) {
  const there = await files(target).catch(() => []);
  for (const path of there) {
    if (!found.has(relative(target, path).split(sep).join("/"))) await rm(path);
  }
  await mkdir(join(target, "assets"), { recursive: true });
  for (const [name, content] of found) {
    // The document last: the files that it names are there when it is read.
    if (name !== "index.html") await writeFile(join(target, name), content);
  }
  await writeFile(join(target, "index.html"), found.get("index.html"));
}

async function check(found) {
  const there = (await files(target)).map((path) => relative(target, path).split(sep).join("/"));
  const wrong = there.filter((name) => !found.has(name));
  for (const [name, content] of found) {
    const old = await readFile(join(target, name)).catch(() => null);
    if (old === null || !old.equals(content)) wrong.push(name);
  }
  if (wrong.length) {
    console.error(`the built page is not that of the sources: ${wrong.sort().join(", ")}; run \`make web\``);
    process.exit(1);
  }
}

if (watching) {
  const announcing = {
    name: "announcing",
    setup(build) {
      build.onEnd(async (result) => {
        if (!result.errors.length) {
          await write(await built(result));
          console.log(`built at ${new Date().toLocaleTimeString()}`);
        }
      });
    },
  };
  const context = await esbuild.context({ ...options, plugins: [announcing] });
  await context.watch();
} else {
  const found = await built(await esbuild.build(options));
  await (checking ? check(found) : write(found));
}
