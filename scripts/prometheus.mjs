// Has Prometheus itself read what is in its language here, by its promtool: alert rules and their
// tests, and the expressions of the dashboard.
//   node scripts/prometheus.mjs
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

process.chdir(join(dirname(new URL(import.meta.url).pathname), ".."));
// scripts/setup.sh unpacks Debian's where it is not installed.
const unpacked = ".cache/debian/usr/bin/promtool";
const promtool = existsSync(unpacked) ? unpacked : "promtool";

function check(...args) {
  const { status, error } = spawnSync(promtool, args, { stdio: "inherit" });
  if (error) throw new Error(`${promtool}: ${error.message}; run scripts/setup.sh test`);
  if (status !== 0) process.exit(1);
}

/** Every expression under a panel, wherever it stands. */
function* expressions(value) {
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    if (key === "expr" && typeof inner === "string") yield inner;
    else yield* expressions(inner);
  }
}

check("check", "rules", "config/alerts/sealcast.yml");
check("test", "rules", "tests/alerts/sealcast.yml");

const dashboard = JSON.parse(readFileSync("config/dashboards/sealcast.json", "utf8"));
// Each as a recording rule, with Grafana's interval filled in. JSON is YAML.
const rules = [...expressions(dashboard)].map((expression, index) => ({
  record: `dashboard:${index}`,
  expr: expression.replaceAll("$__rate_interval", "5m"),
}));
if (rules.length < 30) throw new Error(`only ${rules.length} expressions in the dashboard`);
const dir = mkdtempSync(join(tmpdir(), "sealcast-prometheus-"));
try {
  const file = join(dir, "dashboard.json");
  writeFileSync(file, JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
  check("check", "rules", "--lint=none", file);
} finally {
  rmSync(dir, { recursive: true });
}
