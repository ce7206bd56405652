import { execFile } from "node:child_process";
import { access, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const INSTALL_MS_MAX = 5 * 60_000;

/** Puts npm packages into a folder of their own; the versions are part of the names, so that what is there stays as it is. */
export async function install(folder: string, packages: readonly string[]): Promise<void> {
  const done = join(folder, `.installed-${packages.join("+").replaceAll(/[^A-Za-z0-9.+-]/g, "_")}`);
  if (await exists(done)) return;
  await mkdir(folder, { recursive: true });
  // Without a manifest npm would look for one in the folders above, and find ours.
  await writeFile(join(folder, "package.json"), '{ "private": true }\n');
  await run("npm", [
    "install",
    "--prefix",
    folder,
    "--no-audit",
    "--no-fund",
    "--no-save",
    "--loglevel=error",
    ...packages,
  ]);
  await writeFile(done, "");
}

/** A Go program, built into a folder; answers its path. */
export async function program(folder: string, module: string, name: string): Promise<string> {
  const path = join(folder, name);
  if (await exists(path)) return path;
  await mkdir(folder, { recursive: true });
  await run("go", ["install", `${module}@latest`], { GOBIN: folder });
  return path;
}

async function run(
  command: string,
  words: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<void> {
  try {
    await promisify(execFile)(command, [...words], {
      timeout: INSTALL_MS_MAX,
      env: { ...process.env, ...environment },
    });
  } catch (thrown) {
    const { stderr, message } = thrown as Error & { stderr?: string };
    const output = (stderr ?? "").trim().split("\n").slice(-2).join(" ") || message;
    // Where a machine gets its packages from is nobody's business who reads the page.
    const why = output.replaceAll(/https?:\/\/[^\s:]+:?/g, "the registry:").replaceAll(/\s+/g, " ");
    throw new Error(`${command} could not install it: ${why}`, { cause: thrown });
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
