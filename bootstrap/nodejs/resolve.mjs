import { ReportedError } from "./thrown.mjs";

const { readdirSync, statSync } = process.getBuiltinModule("node:fs");
const path = process.getBuiltinModule("node:path");

/** In the order in which they are tried. */
const EXTENSIONS = [".mjs", ".js", ".cjs", ".ts", ".mts", ".cts"];

/**
 * Finds the file of a handler (`file` or `file.export`, with or without extension, or a folder with an index file) in a code package.
 * Names with dots are read as the longest file that exists: `v1.2/app.users.list` may be file `v1.2/app.users` and export `list`.
 *
 * @param {string} codePath
 * @param {string} handler
 * @returns {{ file: string, exportName: string | null }} `exportName` may be a path of names with dots
 * @throws {ReportedError} handler-not-found
 */
export function resolveHandler(codePath, handler) {
  const cuts = [handler.length];
  for (let at = handler.lastIndexOf("."); at > handler.lastIndexOf("/") + 1; at = handler.lastIndexOf(".", at - 1))
    cuts.push(at);
  for (const cut of cuts) {
    const file = findFile(codePath, handler.slice(0, cut));
    if (file !== null) return { file, exportName: cut === handler.length ? null : handler.slice(cut + 1) };
  }
  throw new ReportedError({ code: "handler-not-found", message: missing(codePath, handler) });
}

/**
 * @param {string} codePath
 * @param {string} name
 */
function findFile(codePath, name) {
  const base = path.resolve(codePath, `./${name}`);
  if (base !== codePath && !base.startsWith(codePath.endsWith("/") ? codePath : `${codePath}/`)) return null;
  if (EXTENSIONS.includes(path.extname(base)) && isFile(base)) return base;
  for (const extension of EXTENSIONS) if (isFile(base + extension)) return base + extension;
  for (const extension of EXTENSIONS) {
    const index = path.join(base, `index${extension}`);
    if (isFile(index)) return index;
  }
  return null;
}

/** @param {string} file */
function isFile(file) {
  return statSync(file, { throwIfNoEntry: false })?.isFile() === true;
}

/**
 * @param {string} codePath
 * @param {string} handler
 */
function missing(codePath, handler) {
  const folder = path.dirname(path.join(codePath, handler));
  let names = /** @type {string[]} */ ([]);
  try {
    names = readdirSync(folder).filter((name) => EXTENSIONS.includes(path.extname(name)));
  } catch {
    // The folder does not exist either: then there is nothing to suggest.
  }
  const shown = path.relative(codePath, folder);
  const place = shown === "" || shown.startsWith("..") ? "the package" : `'${shown}'`;
  const found = names.length === 0 ? "no JavaScript or TypeScript file" : names.slice(0, 20).join(", ");
  return `there is no such file; ${place} holds ${found}`;
}
