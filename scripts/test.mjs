// `npm test`: sets up what is missing, then runs every check and every test; the last line says how many passed and failed.
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { nodePath, setup } from "./setup.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const only = process.argv.includes("--only") ? process.argv[process.argv.indexOf("--only") + 1] : undefined;
const filters = process.argv.slice(2).filter((argument) => argument.endsWith(".ts"));

if (!setup({ purpose: "test" })) process.exit(1);
const node = nodePath();
const environment = {
  ...process.env,
  PATH: `${join(root, "node_modules", ".bin")}:${dirname(node)}:${process.env["PATH"] ?? ""}`,
};

const checks = [
  { name: "types", command: ["tsc", "--noEmit", "-p", "tsconfig.json"] },
  { name: "lint", command: ["oxlint", "--type-aware", "src", "bootstrap", "scripts", "bin", "test", "bench"] },
  { name: "format", command: ["oxfmt", "--check"] },
];
const suites = [
  { name: "unit", files: ["src/**/!(*.real).test.ts", "test/*.test.ts"], concurrency: 2, timeoutMs: 120_000 },
  {
    name: "instances",
    files: ["src/**/*.real.test.ts", "test/instances/*.test.ts"],
    concurrency: 2,
    timeoutMs: 180_000,
  },
  { name: "system", files: ["test/system/**/*.test.ts"], concurrency: 1, timeoutMs: 300_000 },
  { name: "isolation", files: ["test/isolation/*.test.ts"], concurrency: 2, timeoutMs: 300_000 },
];

let passed = 0;
let failed = 0;
if (filters.length > 0) await suite({ name: "chosen", files: filters, concurrency: 1, timeoutMs: 300_000 });
else {
  if (only === undefined || only === "check") for (const check of checks) await runCheck(check);
  for (const chosen of suites) if (only === undefined || only === chosen.name) await suite(chosen);
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);

/** @param {{ name: string, command: string[] }} check */
async function runCheck({ name, command }) {
  const begun = Date.now();
  const { code, output } = await run(command);
  if (code === 0) passed++;
  else {
    failed++;
    process.stdout.write(output);
  }
  process.stdout.write(`${code === 0 ? "✔" : "✖"} ${name} (${((Date.now() - begun) / 1000).toFixed(1)} s)\n`);
}

/** @param {{ name: string, files: string[], concurrency: number, timeoutMs: number }} suite */
async function suite({ name, files, concurrency, timeoutMs }) {
  const begun = Date.now();
  const command = [
    node,
    "--disable-warning=ExperimentalWarning",
    "--test",
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${timeoutMs}`,
    "--test-reporter=./scripts/reporter.mjs",
    "--test-reporter-destination=stdout",
    ...files,
  ];
  const { code, output } = await run(command, process.stdout);
  const totals = /^totals: (\d+) passed, (\d+) failed$/m.exec(output);
  passed += Number(totals?.[1] ?? 0);
  failed += Number(totals?.[2] ?? 0);
  if (totals === null || (code !== 0 && Number(totals[2]) === 0)) {
    failed++;
    process.stdout.write(`✖ ${name}: the test runner ended with code ${code}\n`);
  }
  process.stdout.write(`${name} tests took ${((Date.now() - begun) / 1000).toFixed(1)} s\n`);
}

/**
 * @param {string[]} command
 * @param {NodeJS.WritableStream} [echo]
 * @returns {Promise<{ code: number, output: string }>}
 */
function run([program = "", ...rest], echo) {
  return new Promise((resolve) => {
    const child = spawn(program, rest, { cwd: root, env: environment, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (chunk) => {
        output = (output + chunk).slice(-1_000_000);
        echo?.write(chunk);
      });
    }
    child.on("error", (error) => resolve({ code: 1, output: `${program}: ${error.message}\n` }));
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}
