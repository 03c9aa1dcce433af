/**
 * Builds what is named on the command line:
 *
 *   sdk      lib/: the package's modules, worker and crypto module
 *   page     dist/: the consult page with hashed assets, which the relay embeds
 *   test     build/test/: the unit tests
 *   gallery  build/gallery/: the page's parts with made-up data, for working on their looks
 *
 * The crypto module comes from `cargo run -p xtask -- wasm --out client/wasm`.
 */
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";
import { build } from "esbuild";

const ROOT = dirname(fileURLToPath(import.meta.url));
const WASM_GLUE = join(ROOT, "wasm/sealcast_wasm.js");
const WASM_MODULE = join(ROOT, "wasm/sealcast_wasm_bg.wasm");
const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

const COMMON = {
  absWorkingDir: ROOT,
  bundle: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
  define: { SEALCAST_VERSION: JSON.stringify(version) },
};

const TARGETS = { sdk: buildSdk, page: buildPage, test: buildTests, gallery: buildGallery };

for (const name of process.argv.slice(2)) {
  const target = TARGETS[name];
  if (!target) throw new Error(`unknown target ${name}; known: ${Object.keys(TARGETS).join(", ")}`);
  await target();
}

async function buildSdk() {
  const out = fresh("lib");
  await build({ ...COMMON, entryPoints: ["src/index.ts"], outfile: join(out, "index.js"), sourcemap: true });
  await bundleWorker({ outfile: join(out, "worker.js"), sourcemap: true });
  copyFileSync(WASM_MODULE, join(out, "sealcast.wasm"));
}

async function buildPage() {
  const assets = join(fresh("dist"), "assets");
  mkdirSync(assets);
  const wasm = emit(assets, "sealcast", "wasm", readFileSync(requireWasm(WASM_MODULE)));
  const worker = emit(assets, "worker", "js", await bundleWorker({ minify: true, write: false }));
  const page = await build({
    ...COMMON,
    entryPoints: { consult: "page/main.ts", style: "page/style/index.css" },
    outdir: "dist/assets",
    write: false,
    minify: true,
    define: {
      ...COMMON.define,
      WORKER_PATH: JSON.stringify(`/assets/${worker}`),
      WASM_PATH: JSON.stringify(`/assets/${wasm}`),
    },
  });
  const script = emit(assets, "consult", "js", outputOf(page, ".js"));
  const style = emit(assets, "style", "css", outputOf(page, ".css"));
  const icon = emit(assets, "icon", "svg", readFileSync(join(ROOT, "page/icon.svg")));
  const html = readFileSync(join(ROOT, "page/index.html"), "utf8")
    .replace("{{script}}", `/assets/${script}`)
    .replace("{{style}}", `/assets/${style}`)
    .replace("{{icon}}", `/assets/${icon}`);
  writeFileSync(join(ROOT, "dist/index.html"), html);
}

async function buildTests() {
  const out = fresh("build/test");
  const tests = readdirSync(join(ROOT, "test")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...COMMON,
    entryPoints: tests.map((name) => join("test", name)),
    outdir: out,
    outExtension: { ".js": ".mjs" },
    platform: "node",
    sourcemap: "inline",
  });
}

async function buildGallery() {
  const out = fresh("build/gallery");
  await build({
    ...COMMON,
    entryPoints: { gallery: "gallery/gallery.ts", style: "page/style/index.css" },
    outdir: out,
    define: { ...COMMON.define, WORKER_PATH: '""', WASM_PATH: '""' },
  });
  copyFileSync(join(ROOT, "gallery/gallery.html"), join(out, "index.html"));
}

async function bundleWorker(options) {
  const result = await build({
    ...COMMON,
    ...options,
    entryPoints: ["src/worker/worker.ts"],
    alias: { "sealcast-wasm": requireWasm(WASM_GLUE) },
    ...(options.write === false ? { outdir: "dist/assets" } : {}),
  });
  return options.write === false ? outputOf(result, ".js") : undefined;
}

function requireWasm(path) {
  if (!existsSync(path)) {
    throw new Error(`${path} is missing; make it with: cargo run -p xtask -- wasm --out client/wasm`);
  }
  return path;
}

function outputOf(result, extension) {
  const file = result.outputFiles.find(({ path }) => path.endsWith(extension));
  if (!file) throw new Error(`the bundler made no ${extension}`);
  return Buffer.from(file.contents);
}

/** Writes a file under a name that changes with its content; returns the name. */
function emit(directory, name, extension, content) {
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 12);
  const file = `${name}-${hash}.${extension}`;
  writeFileSync(join(directory, file), content);
  // The relay sends this one to browsers that take it: the crypto module shrinks to a quarter.
  writeFileSync(join(directory, `${file}.br`), brotliCompressSync(content));
  return file;
}

function fresh(directory) {
  const path = join(ROOT, directory);
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path, { recursive: true });
  return path;
}
