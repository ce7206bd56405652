import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import type { RegistryCredentials } from "../images.ts";
import type { ImageReference } from "./reference.ts";

/** Under this name the client of Docker keeps its own registry. */
const DOCKER_REGISTRY_KEY = "https://index.docker.io/v1/";
const HELPER_MS_MAX = 10_000;

interface ClientConfig {
  readonly auths?: Readonly<Record<string, { readonly auth?: string; readonly identitytoken?: string }>>;
  readonly credHelpers?: Readonly<Record<string, string>>;
  readonly credsStore?: string;
}

/**
 * What `X-Registry-Auth` is to hold for an image: the credentials given, else those with which the platform's user has logged in by
 * `docker login`, from the client's configuration or its credential helper; null: none.
 */
export async function registryAuth(
  reference: ImageReference,
  given: RegistryCredentials | null,
  options: { readonly configFile: string | null; readonly searchPath: string },
): Promise<string | null> {
  const key = reference.registry === "docker.io" ? DOCKER_REGISTRY_KEY : reference.registry;
  const credentials =
    given ?? (options.configFile === null ? null : await loggedIn(key, options.configFile, options.searchPath));
  if (credentials === null) return null;
  return encodeAuth({ ...credentials, serveraddress: key });
}

/** URL-safe, and padded: engines take what is not for no credentials at all. */
export function encodeAuth(auth: object): string {
  const text = Buffer.from(JSON.stringify(auth)).toString("base64");
  return text.replaceAll("+", "-").replaceAll("/", "_");
}

type Login = RegistryCredentials | { readonly identitytoken: string };

async function loggedIn(key: string, configFile: string, searchPath: string): Promise<Login | null> {
  const config = await readConfig(configFile);
  const helper = config.credHelpers?.[key] ?? config.credsStore;
  if (helper !== undefined && /^[\w.-]+$/.test(helper)) {
    const login = await askHelper(`docker-credential-${helper}`, key, searchPath);
    if (login !== null) return login;
  }
  const entry = config.auths?.[key] ?? config.auths?.[`https://${key}`] ?? config.auths?.[`https://${key}/v1/`];
  if (entry?.identitytoken !== undefined) return { identitytoken: entry.identitytoken };
  const [, username, password] =
    /^([^:]*):(.*)$/s.exec(Buffer.from(entry?.auth ?? "", "base64").toString("utf8")) ?? [];
  return username === undefined || password === undefined ? null : { username, password };
}

async function readConfig(path: string): Promise<ClientConfig> {
  try {
    const parsed: unknown = JSON.parse(await readFile(path, "utf8"));
    return typeof parsed === "object" && parsed !== null ? parsed : {};
  } catch {
    return {};
  }
}

/** The protocol of Docker's credential helpers: the registry on standard input, JSON on standard output. */
function askHelper(program: string, key: string, searchPath: string): Promise<Login | null> {
  return new Promise((resolve) => {
    const options = { timeout: HELPER_MS_MAX, env: { PATH: searchPath } };
    const child = execFile(program, ["get"], options, (error, stdout) => {
      if (error !== null) return resolve(null);
      try {
        const { Username: username, Secret: password } = JSON.parse(stdout) as { Username?: string; Secret?: string };
        if (username === undefined || password === undefined) return resolve(null);
        resolve(username === "<token>" ? { identitytoken: password } : { username, password });
      } catch {
        resolve(null);
      }
    });
    child.stdin?.on("error", () => {});
    child.stdin?.end(key);
  });
}
