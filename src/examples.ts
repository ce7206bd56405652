import { randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { ErrorBody } from "./core/api.ts";
import { processIo } from "./cli/io.ts";
import { runCli } from "./cli/main.ts";

interface ExampleProject {
  readonly name: string;
  readonly runtime?: string;
  readonly handler?: string;
  readonly secrets?: readonly string[];
}

const FOLDER = fileURLToPath(new URL("../examples", import.meta.url));

/**
 * Deploys the examples through the public API, as a person would, and prints what to try. A function of the same name that is there already
 * stays as it is. An example that cannot be deployed, such as one whose packages cannot be fetched, is reported and left out.
 */
export async function deployExamples(url: string, token: string | undefined, signal: AbortSignal): Promise<void> {
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const deployed: string[] = [];
  for (const folder of (await readdir(FOLDER)).sort(helloFirst)) {
    if (signal.aborted) return;
    const path = join(FOLDER, folder);
    const project = await readProject(path);
    if (project === null) continue;
    const existing = await fetch(`${url}/v1/namespaces/default/functions/${project.name}`, { headers, signal });
    if (!existing.ok) {
      for (const name of project.secrets ?? []) await ensureSecret(url, name, { headers, signal });
      const failure = await deployFolder(path, url, token);
      if (failure !== null) {
        process.stderr.write(`  example ${project.name} was not deployed: ${failure}\n`);
        continue;
      }
    }
    deployed.push(project.name + languageNote(project));
  }
  process.stdout.write(`  examples deployed: ${deployed.join("  ")}\n  try   curl '${url}/fn/hello?name=you'\n`);
}

async function readProject(path: string): Promise<ExampleProject | null> {
  try {
    return JSON.parse(await readFile(join(path, "koine.json"), "utf8")) as ExampleProject;
  } catch {
    return null;
  }
}

/** A secret that an example needs gets a random value, unless it was set. */
async function ensureSecret(
  url: string,
  name: string,
  request: { readonly headers: Record<string, string>; readonly signal: AbortSignal },
): Promise<void> {
  const listed = await fetch(`${url}/v1/namespaces/default/secrets?limit=1000`, request);
  const { items } = (await listed.json()) as { items: readonly { name: string }[] };
  if (items.some((secret) => secret.name === name)) return;
  await fetch(`${url}/v1/namespaces/default/secrets/${name}`, {
    ...request,
    method: "PUT",
    headers: { ...request.headers, "content-type": "application/json" },
    body: JSON.stringify({ value: randomBytes(24).toString("base64url") }),
  });
}

/** Answers what went wrong, or null. */
async function deployFolder(path: string, url: string, token: string | undefined): Promise<string | null> {
  const output = new Collected();
  const errors = new Collected();
  const environment = { PATH: process.env["PATH"], ...(token === undefined ? {} : { KOINE_TOKEN: token }) };
  const io = {
    ...processIo({ environment, version: "", launch: [] }),
    stdin: Readable.from([]),
    stdout: output,
    stderr: errors,
    cwd: path,
    isTerminal: { stdin: false, stdout: false, stderr: false },
    onInterrupt: () => () => {},
  };
  const code = await runCli(["deploy", path, "--url", url, "--namespace", "default", "-o", "json"], io);
  if (code === 0) return null;
  const text = errors.text();
  const body = /\{.*\}/s.exec(text)?.[0];
  try {
    return (JSON.parse(body ?? "") as ErrorBody).error.message;
  } catch {
    return text.trim() || `exit code ${code}`;
  }
}

class Collected extends Writable {
  readonly #chunks: Buffer[] = [];

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#chunks.push(chunk);
    done();
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString("utf8");
  }
}

function helloFirst(a: string, b: string): number {
  if (a === "hello" || b === "hello") return a === "hello" ? -1 : 1;
  return a < b ? -1 : 1;
}

function languageNote({ runtime = "", handler = "" }: ExampleProject): string {
  if (runtime.startsWith("python")) return " (python)";
  return handler.includes(".ts") ? " (typescript)" : "";
}
