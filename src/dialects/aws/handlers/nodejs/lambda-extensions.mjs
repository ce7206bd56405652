const FOLDER = "/opt/extensions";
/** What the platform gives an instance to end is a little more. */
const ENDING_MS_MAX = 1_200;

/** Starts the programs that layers brought beside this one; when it ends they end first. */
export function startExtensions() {
  const { readdirSync, statSync } = process.getBuiltinModule("node:fs");
  /** @type {string[]} */
  let names = [];
  try {
    names = readdirSync(FOLDER);
  } catch {
    return;
  }
  const files = names.map((name) => `${FOLDER}/${name}`).filter((file) => isProgram(statSync(file)));
  if (files.length === 0) return;
  const { spawn } = process.getBuiltinModule("node:child_process");
  const ended = files.map((file) => {
    const child = spawn(file, [], { stdio: ["ignore", "inherit", "inherit"] });
    child.unref();
    return new Promise((resolve) => {
      child.on("exit", resolve);
      child.on("error", (error) => {
        process.stderr.write(`the extension ${file} cannot be started: ${error.message}\n`);
        resolve(null);
      });
    });
  });
  process.once("SIGTERM", () => {
    const late = new Promise((resolve) => setTimeout(resolve, ENDING_MS_MAX));
    void Promise.race([Promise.all(ended), late]).then(() => process.exit(0));
  });
}

/** @param {import("node:fs").Stats} found */
function isProgram(found) {
  return found.isFile() && (found.mode & 0o111) !== 0;
}
