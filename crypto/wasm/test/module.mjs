// The built module, loaded once for all tests. `cargo run -p xtask -- wasm --out client/wasm`
// builds it; SEALCAST_WASM names another directory.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import path from "node:path";

export const directory =
  process.env.SEALCAST_WASM ?? path.join(import.meta.dirname, "../../../client/wasm");
const bindings = await import(pathToFileURL(path.join(directory, "sealcast_wasm.js")));
bindings.initSync({ module: await readFile(path.join(directory, "sealcast_wasm_bg.wasm")) });
export default bindings;

export const hex = (text) => new Uint8Array(Buffer.from(text, "hex"));
export const toHex = (bytes) => Buffer.from(bytes).toString("hex");
