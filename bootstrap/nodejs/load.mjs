import { resolveHandler } from "./resolve.mjs";
import { ReportedError, describeThrown, isError } from "./thrown.mjs";

const path = process.getBuiltinModule("node:path");
const { pathToFileURL } = process.getBuiltinModule("node:url");

/**
 * @typedef {import("./call.mjs").Call} Call
 *
 * @typedef {object} Specialisation what SPECIALISE carries
 * @property {string} codePath
 * @property {string} handler
 * @property {string} handlerModel a model's name or `auto`
 * @property {Record<string, string>} environment
 * @property {{ namespace: string, package: string, name: string, version: number }} function
 * @property {number} memoryBytesMax
 * @property {number} timeoutMs
 * @property {number} instanceConcurrency
 * @property {{ dialect: string, model: string, path: string }[]} adapters
 * @property {{ command: readonly string[] }} [program] what is run for each call, instead of a handler
 * @property {{ path: string | null }} [codeCache] where compiled code is; null: what is compiled may be told
 *
 * @typedef {object} Instance what an adapter is told (docs/adapters.md)
 * @property {Specialisation["function"]} function
 * @property {string} handler
 * @property {string | null} exportName the export that the handler names, or null
 * @property {string} codePath
 * @property {number} memoryBytesMax
 * @property {number} timeoutMs
 * @property {number} instanceConcurrency calls that it may have at a time
 * @property {(message: string) => Error} invalidResponse what to throw when a handler's answer cannot be used
 *
 * @typedef {Record<string, unknown>} ModuleExports
 *
 * @typedef {object} Adapter
 * @property {string} model
 * @property {(exports: ModuleExports, exportName: string | null, options: { explicit: boolean }) => unknown} select
 * @property {(handler: any, instance: Instance) => (call: Call) => Promise<void>} adapt
 * @property {(instance: Instance, options: { explicit: boolean }) => void} [prepare]
 * @property {(instance: Instance, makeCall: () => Call) => Promise<void>} [rehearse]
 */

/**
 * Loads a handler and chooses the adapter that understands it.
 *
 * @param {Specialisation} specialisation
 * @param {(path: string) => Promise<Adapter>} adapterAt
 * @param {(message: string) => Error} invalidResponse
 * @returns {Promise<{ handlerModel: string, handle: (call: Call) => Promise<void> }>}
 * @throws {ReportedError}
 */
export async function loadHandler(specialisation, adapterAt, invalidResponse) {
  const { codePath, handler, handlerModel, adapters } = specialisation;
  const explicit = handlerModel !== "auto";
  const candidates = adapters.filter((adapter) => !explicit || adapter.model === handlerModel);
  if (candidates.length === 0) {
    const message = `there is no handler model '${handlerModel}' for nodejs`;
    throw new ReportedError({ code: "unknown-handler-model", message, detail: "nodejs" });
  }
  if (specialisation.program !== undefined) {
    const adapter = await adapterAt(candidates[0]?.path ?? "");
    const instance = { ...specialisation, exportName: null, invalidResponse };
    return { handlerModel: adapter.model, handle: adapter.adapt(specialisation.program, instance) };
  }
  const { file, exportName } = resolveHandler(codePath, handler);
  const instance = { ...specialisation, exportName, invalidResponse };
  process.argv.splice(1, process.argv.length, file);
  const loaded = [];
  for (const candidate of candidates) {
    const adapter = await adapterAt(candidate.path);
    adapter.prepare?.(instance, { explicit });
    loaded.push(adapter);
  }
  const exports = unwrap(await importModule(file, codePath));
  for (const adapter of loaded) {
    const selected = adapter.select(exports, exportName, { explicit });
    if (selected !== null) return { handlerModel: adapter.model, handle: adapter.adapt(selected, instance) };
  }
  throw notFound(exports, {
    file: path.relative(codePath, file),
    exportName,
    models: loaded.map(({ model }) => model),
  });
}

/**
 * Looks up a name or a path of names (`users.list`) in what a module exports; undefined when there is none.
 *
 * @param {ModuleExports} exports
 * @param {string} name
 * @returns {unknown}
 */
export function exportOf(exports, name) {
  if (name in exports) return exports[name];
  /** @type {unknown} */
  let value = exports;
  for (const part of name.split(".")) {
    if ((typeof value !== "object" && typeof value !== "function") || value === null) return undefined;
    value = /** @type {ModuleExports} */ (value)[part];
  }
  return value;
}

/**
 * One view of ES modules, CommonJS modules and ES modules that were compiled to CommonJS: named exports, and `default`.
 *
 * @param {ModuleExports} namespace
 * @returns {ModuleExports}
 */
function unwrap(namespace) {
  /** @type {ModuleExports} */
  const view = Object.create(null);
  for (const name of Object.keys(namespace)) if (name !== "module.exports") view[name] = namespace[name];
  const inner = view["default"];
  if ((typeof inner !== "object" && typeof inner !== "function") || inner === null) return view;
  const members = /** @type {ModuleExports} */ (inner);
  for (const name of Object.keys(members)) if (!(name in view)) view[name] = members[name];
  if (members["__esModule"] === true && "default" in members) view["default"] = members["default"];
  delete view["__esModule"];
  return view;
}

/**
 * @param {ModuleExports} exports
 * @param {{ file: string, exportName: string | null, models: string[] }} sought
 */
function notFound(exports, { file, exportName, models }) {
  const names = Object.keys(exports);
  const listed = names.length === 0 ? "nothing" : names.slice(0, 20).join(", ");
  const exported = `'${file}' exports ${listed}`;
  const value = exportName === null ? undefined : exportOf(exports, exportName);
  let message = `it has no export that ${models.join(" or ")} can call; ${exported}`;
  if (exportName !== null && value === undefined) message = `there is no export '${exportName}'; ${exported}`;
  else if (exportName !== null)
    message = `export '${exportName}' is ${kind(value)}, which ${models.join(" or ")} cannot call`;
  return new ReportedError({ code: "handler-not-found", message, exports: names });
}

/** @param {unknown} value */
function kind(value) {
  if (value === null) return "null";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/**
 * @param {string} file
 * @param {string} codePath
 * @returns {Promise<ModuleExports>}
 */
async function importModule(file, codePath) {
  try {
    return await import(pathToFileURL(file).href);
  } catch (thrown) {
    throw await explain(thrown, file, codePath);
  }
}

/** How a stack begins that was decorated with the place in the source: a path, a line, the code, a row of carets. */
const PLACE = /^(?<file>\/.*|file:\/\/.*):(?<line>\d+)\n(?<frame>[^]*?)\n\s*\n?\w*Error\b/;

/**
 * @param {unknown} thrown
 * @param {string} file
 * @param {string} codePath
 */
async function explain(thrown, file, codePath) {
  if (!isError(thrown)) return new ReportedError(describeThrown(thrown, "handler-load-failed"));
  const code = String(/** @type {{ code?: unknown }} */ (thrown).code ?? "");
  if (code === "ERR_UNKNOWN_FILE_EXTENSION" && /\.[cm]?ts$/.test(file)) {
    const message = `Node ${process.versions.node} cannot run TypeScript: use runtime nodejs26.x, or deploy compiled JavaScript`;
    return new ReportedError({ code: "handler-load-failed", message });
  }
  if (thrown.name !== "SyntaxError") return new ReportedError(describeThrown(thrown, "handler-load-failed"));
  const stack = String(thrown.stack);
  const decorated = PLACE.exec(stack)?.groups;
  // A SyntaxError with frames of user code was thrown by something that ran, such as JSON.parse.
  const ran = decorated === undefined && stack.includes(pathToFileURL(codePath).href);
  if (ran) return new ReportedError(describeThrown(thrown, "handler-load-failed"));
  const place = decorated ?? (await locate(file));
  const where = place === undefined ? "" : `${relative(place["file"] ?? "", codePath)}:${place["line"] ?? ""}`;
  const more =
    code === "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX"
      ? " (types are only removed, not compiled: enum, namespace and parameter properties need a build step)"
      : "";
  const message = `${thrown.message}${more}`;
  const detail = place === undefined ? message : `${where}: ${message}\n${place["frame"] ?? ""}`;
  return new ReportedError({ code: "handler-syntax-error", message, detail, type: "SyntaxError", stack });
}

/** @param {string} file a path or file URL
 * @param {string} codePath */
function relative(file, codePath) {
  const plain = file.startsWith("file://") ? decodeURIComponent(new URL(file).pathname) : file;
  return path.relative(codePath, plain);
}

/**
 * Node does not say where in an ES module a syntax error is, so a child process compiles the handler and what it imports once more.
 *
 * @param {string} file
 * @returns {Promise<Record<string, string> | undefined>}
 */
async function locate(file) {
  const { spawnSync } = await import("node:child_process");
  const script = new URL("./locate-syntax-error.mjs", import.meta.url).pathname;
  const argv = ["--experimental-vm-modules", "--no-warnings", script, file];
  const checked = spawnSync(process.execPath, argv, { timeout: 3_000, encoding: "utf8", env: {} });
  return PLACE.exec(checked.stderr ?? "")?.groups;
}
