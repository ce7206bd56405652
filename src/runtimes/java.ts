import { access, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { KoineError } from "../core/errors.ts";
import type { Runtime, RuntimeLaunch } from "./runtime.ts";

export interface JavaRuntimeOptions {
  readonly name: `java${number}`;
  /** Where the machine's Java virtual machines are. */
  readonly folder?: string;
}

interface Machine {
  readonly home: string;
  readonly major: number;
  readonly version: string;
}

const MACHINES = "/usr/lib/jvm";
const SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin";
/** What a Java virtual machine takes before any class of the function's. */
const OVERHEAD_BYTES = 64 * 1024 * 1024;

/**
 * Puts `java` beside what a package brings, which speaks a protocol and says by its command what is launched: the machine's Java of this
 * version, or else the next newer one.
 */
export function createJavaRuntime({ name, folder = MACHINES }: JavaRuntimeOptions): Runtime {
  const wanted = Number(name.slice("java".length));
  let found: Promise<RuntimeLaunch> | null = null;
  return {
    name,
    language: "java",
    program: ["java", "-jar", "app.jar"],
    async prepare(signal) {
      signal.throwIfAborted();
      found ??= find(name, { wanted, folder });
      try {
        return await found;
      } catch (thrown) {
        // It may be installed by the time of the next call.
        found = null;
        throw thrown;
      }
    },
  };
}

async function find(
  runtime: string,
  { wanted, folder }: { readonly wanted: number; readonly folder: string },
): Promise<RuntimeLaunch> {
  const machines = await machinesIn(folder);
  const [best] = machines.filter(({ major }) => major >= wanted).sort((a, b) => a.major - b.major);
  if (best === undefined) {
    const remedy = `Install one, as with: apt-get install openjdk-${wanted}-jre-headless`;
    throw new KoineError("runtime-unavailable", {
      runtime,
      detail: `there is no Java ${wanted} or newer in ${folder}`,
      remedy,
    });
  }
  return {
    command: [],
    environment: { JAVA_HOME: best.home, PATH: `${best.home}/bin:${SYSTEM_PATH}` },
    mounts: [],
    overheadBytes: OVERHEAD_BYTES,
    version: best.version,
    build: null,
  };
}

async function machinesIn(folder: string): Promise<readonly Machine[]> {
  const names = await readdir(folder).catch(() => []);
  const machines = names.map(async (name): Promise<readonly Machine[]> => {
    const home = join(folder, name);
    const version = await versionOf(home);
    return version === null ? [] : [{ home, version, major: Number(version.split(".")[0]) }];
  });
  return (await Promise.all(machines)).flat();
}

/** Null: there is no `java` in it. */
async function versionOf(home: string): Promise<string | null> {
  try {
    await access(join(home, "bin", "java"));
    const release = await readFile(join(home, "release"), "utf8");
    return /^JAVA_VERSION="(\d+[\d.]*)/m.exec(release)?.[1] ?? null;
  } catch {
    return null;
  }
}
