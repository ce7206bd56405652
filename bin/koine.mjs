#!/usr/bin/env node
// Starts koine on the Node it needs, whatever Node was found first; `up` also gets a mount namespace of its own.
// Plain JavaScript without dependencies, since it must run on Node 20 before anything is installed.
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { NODE_MAJOR, nodePackageName } from "../scripts/node-version.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const main =
  [join(root, "dist", "src", "main.js"), join(root, "src", "main.ts")].find((path) => existsSync(path)) ?? "";

const node = findNode();
if (node === null) {
  process.stderr.write(
    `error: koine needs Node ${NODE_MAJOR}, which its package ${nodePackageName()} brings along, and that is not installed\n` +
      "  hint: run 'npm install' in koine's folder (in a clone, 'npm start' does it)\n",
  );
  process.exit(1);
}
const argv = process.argv.slice(2);
const isolation = argv[0] === "up" ? privateMounts(argv) : [];
/** @type {NodeJS.ProcessEnv} */
const environment = {
  // Compiled once, loaded twice as fast: most commands are over before they would have been compiled.
  NODE_COMPILE_CACHE: join(root, "node_modules", ".cache", "koine"),
  ...process.env,
  ...(isolation.length > 0 ? { KOINE_PRIVATE_MOUNTS: "1" } : {}),
};
/**
 * What a call leaves behind is collected seldom, and by one thread: helpers that wake for each collection take the processor from those who wait
 * for an answer, on small machines for longer than the collection takes.
 */
const servingFlags = ["--no-parallel-scavenge", "--min-semi-space-size=16", "--max-semi-space-size=32"];
const flags = ["--disable-warning=ExperimentalWarning", ...(argv[0] === "up" ? servingFlags : [])];
const command = [...isolation, node, ...flags, main, ...argv];
run(command, environment);

/** @returns {string | null} */
function findNode() {
  if (Number(process.versions.node.split(".")[0]) === NODE_MAJOR) return process.execPath;
  try {
    const manifest = createRequire(import.meta.url).resolve(`${nodePackageName()}/package.json`);
    const path = join(dirname(manifest), "bin", "node");
    return existsSync(path) ? path : null;
  } catch {
    return null;
  }
}

/**
 * A mount namespace of the platform's own lets it put code into sandboxes that run already, and makes everything it mounts vanish
 * with it, even after kill -9. Where the machine refuses, `up` goes on without and `koine doctor` says so.
 * @param {string[]} argv
 * @returns {string[]}
 */
function privateMounts(argv) {
  if (process.platform !== "linux" || process.env["KOINE_PRIVATE_MOUNTS"] === "1") return [];
  if (argv.includes("--help") || argv.includes("-h") || argv.includes("--sandbox=none")) return [];
  if (argv[argv.indexOf("--sandbox") + 1] === "none" && argv.includes("--sandbox")) return [];
  const asRoot = process.getuid?.() === 0;
  const prefix = [
    "unshare",
    ...(asRoot ? [] : ["--user", "--map-root-user"]),
    "--mount",
    "--propagation",
    "slave",
    "--",
  ];
  const probe = spawnSync(prefix[0] ?? "", [...prefix.slice(1), "true"], { stdio: "ignore" });
  return probe.status === 0 ? prefix : [];
}

/**
 * Replaces this process where Node can, else stays as a parent that passes signals on.
 * @param {string[]} command
 * @param {NodeJS.ProcessEnv} environment
 */
function run(command, environment) {
  const [program = "", ...rest] = command;
  if (typeof process.execve === "function" && process.platform !== "win32") {
    const path = program.includes("/") ? program : lookUp(program);
    if (path !== null) process.execve(path, [program, ...rest], definedOnly(environment));
  }
  const child = spawn(program, rest, { stdio: "inherit", env: environment });
  for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"]))
    process.on(signal, () => child.kill(signal));
  child.on("error", (error) => {
    process.stderr.write(`error: ${error.message}\n`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => {
    if (signal !== null) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    } else process.exit(code ?? 1);
  });
}

/** @param {string} program */
function lookUp(program) {
  for (const folder of (process.env["PATH"] ?? "").split(":")) {
    const path = join(folder, program);
    if (folder !== "" && existsSync(path)) return path;
  }
  return null;
}

/**
 * @param {NodeJS.ProcessEnv} environment
 * @returns {Record<string, string>}
 */
function definedOnly(environment) {
  /** @type {Record<string, string>} */
  const defined = {};
  for (const [name, value] of Object.entries(environment)) if (value !== undefined) defined[name] = value;
  return defined;
}
