import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { processIo } from "./cli/io.ts";
import { runCli } from "./cli/main.ts";
import { NODE_MAJOR } from "../scripts/node-version.mjs";

const major = Number(process.versions.node.split(".")[0]);
if (major < NODE_MAJOR) {
  process.stderr.write(
    `error: koine runs on Node ${NODE_MAJOR}, this is ${process.versions.node}; start it with bin/koine.mjs or 'npm start'\n`,
  );
  process.exit(1);
}
const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };
const launcher = fileURLToPath(new URL("../bin/koine.mjs", import.meta.url));
const io = processIo({ environment: process.env, version: manifest.version, launch: [process.execPath, launcher] });

process.exitCode = await runCli(process.argv.slice(2), io, {
  // The platform's modules are loaded only for the command that needs them: every other command starts faster without.
  up: async (options) => {
    const { up } = await import("./up.ts");
    return await up(options, { environment: process.env, version: manifest.version, cwd: process.cwd() });
  },
});
