const { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } = process.getBuiltinModule("node:fs");
const { join } = process.getBuiltinModule("node:path");
const module = process.getBuiltinModule("node:module");

/** Below this nothing is gained by keeping what was compiled, unless types had to be removed first: loading what does that takes 35 ms. */
const KEPT_BYTES_MIN = 64 * 1024;
/** What fits into one frame, with its name. */
const FILE_BYTES_MAX = 15 * 1024 * 1024;

/**
 * Has Node use compiled code that is at a path, or gather what it compiles from here on.
 *
 * @param {string | null} path
 * @returns {{ take(): Buffer[] }} `take` answers payloads of CODE_CACHE: what was gathered and is worth keeping
 */
export function openCodeCache(path) {
  const nothing = { take: () => [] };
  // Node 22 has none before 22.8, and none that can be told to write before 22.10.
  if (module.enableCompileCache === undefined || module.flushCompileCache === undefined) return nothing;
  if (path !== null) {
    module.enableCompileCache(path);
    return nothing;
  }
  const folder = mkdtempSync(join(process.env["TMPDIR"] ?? "/tmp", ".compiled-"));
  module.enableCompileCache(folder);
  return {
    take() {
      module.flushCompileCache?.();
      const files = filesIn(folder);
      rmSync(folder, { recursive: true, force: true });
      const bytes = files.reduce((sum, file) => sum + file.length, 0);
      const { moduleLoadList } = /** @type {{ moduleLoadList?: string[] }} */ (/** @type {unknown} */ (process));
      const hadTypes = moduleLoadList?.some((name) => name.includes("deps/amaro")) === true;
      return bytes >= KEPT_BYTES_MIN || hadTypes ? files : [];
    },
  };
}

/** @param {string} folder */
function filesIn(folder) {
  const payloads = [];
  for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const found = statSync(join(folder, path));
    if (!found.isFile() || found.size > FILE_BYTES_MAX) continue;
    const name = Buffer.from(path);
    const length = Buffer.alloc(2);
    length.writeUInt16LE(name.length);
    payloads.push(Buffer.concat([length, name, readFileSync(join(folder, path))]));
  }
  return payloads;
}
