// `node scripts/run.mjs FILE ARGS`: runs a TypeScript file on koine's own Node, after setting up what is missing.
import { spawn } from "node:child_process";
import { nodePath, setup } from "./setup.mjs";

if (!setup({ purpose: "test" })) process.exit(1);
const child = spawn(nodePath(), ["--disable-warning=ExperimentalWarning", ...process.argv.slice(2)], {
  stdio: "inherit",
});
child.on("exit", (code) => process.exit(code ?? 1));
