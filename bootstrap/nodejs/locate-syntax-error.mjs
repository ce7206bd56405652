import { readFileSync, statSync } from "node:fs";
import module from "node:module";
import path from "node:path";
import vm from "node:vm";

/**
 * Run as a process of its own after a module failed to compile: compiles it and the files it imports without running any, until one
 * does not compile.
 */
const FILES_MAX = 500;

/** @param {string} file */
function compile(file) {
  const raw = readFileSync(file, "utf8");
  const source = /\.[cm]?ts$/.test(file) ? module.stripTypeScriptTypes(raw) : raw;
  return new vm.SourceTextModule(source, { identifier: file });
}

/**
 * @param {string} specifier
 * @param {string} from
 */
function imported(specifier, from) {
  if (!/^\.{0,2}\//.test(specifier)) return null;
  const file = path.resolve(path.dirname(from), specifier);
  return statSync(file, { throwIfNoEntry: false })?.isFile() === true ? file : null;
}

const queue = [path.resolve(process.argv[2] ?? "")];
const seen = new Set(queue);
for (let file = queue.shift(); file !== undefined && seen.size <= FILES_MAX; file = queue.shift()) {
  // Node itself says where errors in CommonJS files are.
  if (!/\.[cm]?[jt]s$/.test(file) || /\.c[jt]s$/.test(file)) continue;
  // An error is left uncaught: only then does Node add the place to it, on stderr.
  const compiled = /** @type {{ dependencySpecifiers?: string[], moduleRequests?: { specifier: string }[] }} */ (
    /** @type {unknown} */ (compile(file))
  );
  const specifiers = compiled.moduleRequests?.map(({ specifier }) => specifier) ?? compiled.dependencySpecifiers ?? [];
  for (const specifier of specifiers) {
    const next = imported(specifier, file);
    if (next === null || seen.has(next)) continue;
    seen.add(next);
    queue.push(next);
  }
}
