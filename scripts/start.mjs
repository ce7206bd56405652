// `npm start [-- ARGS]`: sets up what is missing and runs the platform with its examples.
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { nodePath, setup } from "./setup.mjs";

if (!setup({ purpose: "start" })) process.exit(1);
const launcher = join(dirname(dirname(fileURLToPath(import.meta.url))), "bin", "koine.mjs");
const child = spawn(nodePath(), [launcher, "up", "--examples", ...process.argv.slice(2)], { stdio: "inherit" });
// From a terminal Ctrl-C reaches the platform twice, which counts as once.
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"]))
  process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(signal === null ? (code ?? 1) : 1));
