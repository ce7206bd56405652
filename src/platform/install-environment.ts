import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { promisify } from "node:util";

/**
 * How installers reach their registries on this machine, to be used inside a build sandbox: proxies, certificates, and what npm and pip
 * are configured with. It goes into configuration files of the lowest rank, so that a package's own `.npmrc` and options in its
 * `requirements.txt` win. Credentials are left out everywhere; a package that needs one brings it in its `.npmrc`.
 */
export interface InstallEnvironment {
  readonly variables: Readonly<Record<string, string>>;
  /** Files to be readable inside, by name within the folder that `installEnvironment` was told of. */
  readonly files: ReadonlyMap<string, Buffer>;
  /** Folders of the machine with packages, by the absolute path at which each is to be readable inside. */
  readonly folders: ReadonlyMap<string, string>;
}

/** Runs a command to its end and answers what it wrote to stdout. */
type Ask = (command: string, args: readonly string[]) => Promise<string>;

const ASK_TIMEOUT_MS = 20_000;
const NPM_KEYS = ["registry", "proxy", "https-proxy", "noproxy", "strict-ssl"];
const PIP_KEYS = ["index-url", "extra-index-url", "trusted-host", "no-index", "proxy", "timeout", "retries"];
const PROXY_VARIABLES = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
const CERTIFICATE_VARIABLES = [
  "NODE_EXTRA_CA_CERTS",
  "SSL_CERT_FILE",
  "REQUESTS_CA_BUNDLE",
  "CURL_CA_BUNDLE",
  "GIT_SSL_CAINFO",
];

/**
 * Answers a function that finds the settings out when first called, and remembers them. npm and pip are asked once; a machine that lacks
 * one of them has no settings for it.
 */
export function installEnvironment(options: {
  /** The platform's own environment. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Absolute path inside the sandbox in which the files will be found. */
  readonly insideFolder: string;
  readonly ask?: Ask;
}): () => Promise<InstallEnvironment> {
  let found: Promise<InstallEnvironment> | null = null;
  return () => (found ??= find(options.environment, options.insideFolder, options.ask ?? askWith(options.environment)));
}

async function find(
  environment: Readonly<Record<string, string | undefined>>,
  insideFolder: string,
  ask: Ask,
): Promise<InstallEnvironment> {
  const kept = new KeptFiles(insideFolder);
  const [npm, pip] = await Promise.all([npmSettings(ask), pipSettings(ask)]);
  const variables: Record<string, string> = {};
  for (const name of PROXY_VARIABLES.flatMap((name) => [name, name.toUpperCase()])) {
    const value = environment[name];
    if (value !== undefined && value !== "") variables[name] = withoutCredentials(value);
  }
  for (const name of CERTIFICATE_VARIABLES) {
    const inside = await kept.certificate(environment[name]);
    if (inside !== null) variables[name] = inside;
  }
  variables["NPM_CONFIG_USERCONFIG"] = kept.file("npmrc", await npmFile(npm, kept));
  variables["PIP_CONFIG_FILE"] = kept.file("pip.conf", await pipFile(pip, kept));
  return { variables, files: kept.files, folders: kept.folders };
}

/** Gathers what must be visible inside; the same file of the machine is taken once. */
class KeptFiles {
  readonly files = new Map<string, Buffer>();
  readonly folders = new Map<string, string>();
  readonly #certificates = new Map<string, string>();
  readonly #insideFolder: string;

  constructor(insideFolder: string) {
    this.#insideFolder = insideFolder;
  }

  file(name: string, content: string | Buffer): string {
    this.files.set(name, Buffer.from(content));
    return `${this.#insideFolder}/${name}`;
  }

  /** Where a file of certificates will be inside; null when there is none. */
  async certificate(path: string | undefined): Promise<string | null> {
    if (path === undefined || path === "") return null;
    const known = this.#certificates.get(path);
    if (known !== undefined) return known;
    const content = await readFile(path).catch(() => null);
    if (content === null) return null;
    const inside = this.file(`certificates-${this.#certificates.size}.pem`, content);
    this.#certificates.set(path, inside);
    return inside;
  }

  async folder(path: string): Promise<string | null> {
    if (!isAbsolute(path)) return null;
    const found = await stat(path).catch(() => null);
    if (found?.isDirectory() !== true) return null;
    const inside = `${this.#insideFolder}-packages-${this.folders.size}`;
    this.folders.set(inside, path);
    return inside;
  }
}

async function npmSettings(ask: Ask): Promise<ReadonlyMap<string, string>> {
  const settings = new Map<string, string>();
  let all: unknown;
  try {
    all = JSON.parse(await ask("npm", ["config", "list", "--json"]));
  } catch {
    return settings;
  }
  if (typeof all !== "object" || all === null) return settings;
  for (const [key, value] of Object.entries(all)) {
    const wanted = NPM_KEYS.includes(key) || key === "cafile" || /^@[\w.-]+:registry$/.test(key);
    if (wanted && ["string", "boolean"].includes(typeof value) && value !== "") settings.set(key, String(value));
  }
  return settings;
}

async function npmFile(settings: ReadonlyMap<string, string>, kept: KeptFiles): Promise<string> {
  const lines = ["fund=false", "audit=false", "update-notifier=false", "progress=false"];
  for (const [key, value] of settings) {
    const usable = key === "cafile" ? await kept.certificate(value) : withoutCredentials(value);
    if (usable !== null) lines.push(`${key}=${JSON.stringify(usable)}`);
  }
  return `${lines.join("\n")}\n`;
}

async function pipSettings(ask: Ask): Promise<ReadonlyMap<string, string>> {
  const output = await ask("python3", ["-m", "pip", "config", "list"]).catch(() => "");
  const bySection = new Map<string, Map<string, string>>();
  for (const line of output.split("\n")) {
    const [, section = "", key = "", literal = ""] = /^(:env:|global|install)\.([\w-]+)=(.*)$/.exec(line.trim()) ?? [];
    if (key === "") continue;
    const settings = bySection.get(section) ?? new Map<string, string>();
    // What pip prints is a Python string literal; lists are separated by line ends in it.
    settings.set(key.replace("default-timeout", "timeout"), literal.slice(1, -1).replaceAll(/\\n/g, " ").trim());
    bySection.set(section, settings);
  }
  const order = ["global", "install", ":env:"];
  return new Map(order.flatMap((section) => [...(bySection.get(section) ?? [])]));
}

async function pipFile(settings: ReadonlyMap<string, string>, kept: KeptFiles): Promise<string> {
  const lines = ["[global]", "disable-pip-version-check = 1", "no-input = 1"];
  for (const key of PIP_KEYS) {
    const value = settings.get(key);
    if (value === undefined) continue;
    const parts = value.split(/\s+/).filter((part) => part !== "");
    lines.push(`${key} = ${parts.map(withoutCredentials).join("\n    ")}`);
  }
  const certificates = await kept.certificate(settings.get("cert"));
  if (certificates !== null) lines.push(`cert = ${certificates}`);
  const folders: string[] = [];
  for (const source of (settings.get("find-links") ?? "").split(/\s+/)) {
    const inside = /^https?:/.test(source) ? withoutCredentials(source) : await kept.folder(source);
    if (inside !== null) folders.push(inside);
  }
  if (folders.length > 0) lines.push(`find-links = ${folders.join("\n    ")}`);
  return `${lines.join("\n")}\n`;
}

/** An address without its user and password. */
function withoutCredentials(text: string): string {
  return text.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/@\s]*@/i, "$1").replace(/^[^/@\s:]+:[^/@\s]*@/, "");
}

function askWith(environment: Readonly<Record<string, string | undefined>>): Ask {
  const run = promisify(execFile);
  return async (command, args) => {
    // The root folder has no project whose own configuration would be mixed in.
    const { stdout } = await run(command, args, { cwd: "/", env: { ...environment }, timeout: ASK_TIMEOUT_MS });
    return stdout;
  };
}
