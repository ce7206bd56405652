import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * What an installation of dependencies depends on. When that is a few files and nothing else, only these are shown to it and functions
 * with equal ones share the result. Otherwise it sees the whole package and its result belongs to that package alone: else the code of
 * one function could decide, in an install script, what another one finds in its dependencies.
 */
export interface DependencyInputs {
  /** Files of the package's root that the installation sees; null: all of the package. */
  readonly files: readonly string[] | null;
  /** Digest of those files; empty when it sees all. */
  readonly digest: string;
}

const WHOLE: DependencyInputs = { files: null, digest: "" };

/** Reads what decides the installation that `lockFile` asks for; a lock file of an unknown kind may depend on everything. */
export async function dependencyInputs(folder: string, lockFile: string): Promise<DependencyInputs> {
  const names = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isFile()).map((e) => e.name);
  if (["package-lock.json", "npm-shrinkwrap.json"].includes(lockFile)) {
    const files = names.filter((name) => [lockFile, "package.json", ".npmrc"].includes(name));
    if (names.some((name) => name === "binding.gyp")) return WHOLE;
    const texts = await readTexts(folder, files);
    return npmDependsOnFilesOnly(texts, lockFile) ? shared(texts) : WHOLE;
  }
  if (isRequirements(lockFile)) {
    const texts = await readTexts(folder, names.filter(isRequirements));
    return [...texts.values()].every(requirementsAreRemote) ? shared(texts) : WHOLE;
  }
  return WHOLE;
}

function shared(texts: ReadonlyMap<string, string>): DependencyInputs {
  const hash = createHash("sha256");
  for (const [name, text] of texts) hash.update(`${JSON.stringify([name, text])}\n`);
  return { files: [...texts.keys()], digest: hash.digest("hex") };
}

async function readTexts(folder: string, names: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const texts = new Map<string, string>();
  for (const name of names.toSorted()) texts.set(name, await readFile(join(folder, name), "latin1"));
  return texts;
}

const INSTALL_SCRIPTS = new Set([
  "preinstall",
  "install",
  "postinstall",
  "prepublish",
  "preprepare",
  "prepare",
  "postprepare",
]);

/** Lines of a `.npmrc` that name no file of the package: comments, registries with their credentials, and some switches. */
const HARMLESS_NPMRC_LINE =
  /^\s*(?:[;#].*|(?:@[\w.-]+:)?registry\s*=.*|\/\/[^=]*:_(?:authToken|auth|password)\s*=.*|(?:fund|audit|progress|loglevel|legacy-peer-deps|engine-strict|save-exact|always-auth|omit|include|omit-lockfile-registry-resolved)\s*=.*)?$/;

function npmDependsOnFilesOnly(texts: ReadonlyMap<string, string>, lockFile: string): boolean {
  const manifest = parseObject(texts.get("package.json") ?? "");
  if (manifest === null || "workspaces" in manifest) return false;
  const scripts = manifest["scripts"];
  if (typeof scripts === "object" && scripts !== null) {
    if (Object.keys(scripts).some((name) => INSTALL_SCRIPTS.has(name))) return false;
  }
  const local = /"(?:file:|link:|workspace:|\.{1,2}\/|~?\/)/;
  const wanted = ["dependencies", "optionalDependencies", "devDependencies", "peerDependencies", "overrides"];
  if (local.test(JSON.stringify(wanted.map((name) => manifest[name])))) return false;
  if (/"(?:resolved|version)":\s*"(?:file|link):|"link":\s*true/.test(texts.get(lockFile) ?? "")) return false;
  return (texts.get(".npmrc") ?? "").split(/\r?\n/).every((line) => HARMLESS_NPMRC_LINE.test(line));
}

function parseObject(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : null;
  } catch {
    return null;
  }
}

function isRequirements(name: string): boolean {
  return /^(?:requirements|constraints)[\w.-]*\.(?:txt|in)$/.test(name);
}

/** Whether every line is the name of a distribution, an option without a path, or another requirements file of the root. */
function requirementsAreRemote(text: string): boolean {
  return text
    .replaceAll(/\\\r?\n/g, " ")
    .split(/\r?\n/)
    .map((line) => line.replace(/(?:^|\s)#.*$/, "").trim())
    .every(
      (line) =>
        line === "" ||
        /^-(?:r|c|-requirement|-constraint)[\s=]*(?:requirements|constraints)[\w.-]*\.(?:txt|in)$/.test(line) ||
        /^--(?:hash|index-url|extra-index-url|trusted-host|only-binary|no-binary|prefer-binary|pre|require-hashes)\b/.test(
          line,
        ) ||
        /^[A-Za-z0-9][\w.-]*(?:\[[\w\s,.-]*\])?\s*(?:$|[<>=!~;(]|--hash|@\s*(?:https?|git\+https?):)/.test(line),
    );
}
