/** Serves build/gallery on a local port, for working on the page's looks without a relay. */
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../build/gallery");
const TYPES = { html: "text/html", js: "text/javascript", css: "text/css" };
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:";

const server = createServer((request, response) => {
  const path = normalize(new URL(request.url ?? "/", "http://localhost").pathname);
  if (path === "/favicon.ico") {
    // Browsers ask for one whatever the page says.
    response.writeHead(204).end();
    return;
  }
  const file = join(ROOT, path === "/" ? "index.html" : path);
  if (!file.startsWith(ROOT) || !existsSync(file)) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, {
    "content-type": TYPES[file.split(".").at(-1) ?? ""] ?? "application/octet-stream",
    "content-security-policy": CSP,
  });
  createReadStream(file).pipe(response);
});

server.listen(Number(process.env["PORT"] ?? 4173), "127.0.0.1", () => {
  const { port } = server.address();
  console.log(`http://127.0.0.1:${port}/?view=call&tiles=3`);
});
