import { execFile, spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { packTar } from "modern-tar/fs";
import { EngineApi } from "../engine-api.ts";

/** A real engine, alone in a folder of its own: no bridge, no rules of the firewall, no images but those that tests make. */
export interface TestEngine extends AsyncDisposable {
  /** `unix:///…` */
  readonly address: string;
  readonly socketPath: string;
  readonly api: EngineApi;
  /** For drivers and images of the tests. */
  readonly folder: string;
  /** What the engine has written. */
  log(): Promise<string>;
}

const START_MS_MAX = 30_000;
const END_MS_MAX = 15_000;

/** @throws Error when this user may not start one */
export async function startEngine(): Promise<TestEngine> {
  if (process.getuid?.() !== 0) throw new Error("these tests start a container engine (dockerd), which takes root");
  const folder = await mkdtemp(join(tmpdir(), "koine-engine-"));
  const socketPath = join(folder, "engine.sock");
  const config = join(folder, "engine.json");
  await writeFile(config, "{}");
  const logFile = join(folder, "engine.log");
  const child = spawn(
    // It ends with the tests, however they end.
    "setpriv",
    [
      "--pdeathsig=TERM",
      "--",
      "dockerd",
      `--config-file=${config}`,
      `--data-root=${join(folder, "data")}`,
      `--exec-root=${join(folder, "exec")}`,
      `--host=unix://${socketPath}`,
      `--pidfile=${join(folder, "engine.pid")}`,
      "--bridge=none",
      "--iptables=false",
      "--ip6tables=false",
      "--ip-forward=false",
      "--ip-masq=false",
    ],
    {
      stdio: ["ignore", "ignore", "pipe"],
      env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" },
    },
  );
  let failure: Error | null = null;
  const ended = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", (error) => {
      failure = new Error(`dockerd could not be started: ${error.message}`);
      resolve();
    });
  });
  child.stderr.pipe(createWriteStream(logFile));
  const log = (): Promise<string> => readFile(logFile, "utf8").catch(() => "");
  const api = await answering(socketPath, ended);
  if (api === null) {
    child.kill("SIGKILL");
    throw (
      failure ?? new Error(`dockerd did not start (apt-get install docker.io gives it): ${(await log()).slice(-2_000)}`)
    );
  }
  return {
    address: `unix://${socketPath}`,
    socketPath,
    api,
    folder,
    log,
    async [Symbol.asyncDispose]() {
      api.close();
      child.kill("SIGTERM");
      if (!(await Promise.race([ended.then(() => true), delay(END_MS_MAX, false, { ref: false })])))
        child.kill("SIGKILL");
      await ended;
      await unmountBelow(folder);
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

async function answering(socketPath: string, ended: Promise<void>): Promise<EngineApi | null> {
  const over = new AbortController();
  void ended.then(() => over.abort());
  const signal = AbortSignal.any([over.signal, AbortSignal.timeout(START_MS_MAX)]);
  while (!signal.aborted) {
    try {
      return await EngineApi.connect(socketPath);
    } catch {
      await delay(20);
    }
  }
  return null;
}

/** What the engine has left mounted would keep its folder. */
async function unmountBelow(folder: string): Promise<void> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  const points = lines.map((line) => line.split(" ")[4] ?? "").filter((point) => point.startsWith(`${folder}/`));
  for (const point of points.toReversed()) await promisify(execFile)("umount", ["--lazy", point]).catch(() => {});
}

export interface TestImage {
  /** `name:tag` */
  readonly name: string;
  /** Instructions such as `CMD ["/bin/sh"]`. */
  readonly changes?: readonly string[];
  /** Contents by path, without the slash in front. */
  readonly files?: Readonly<Record<string, string>>;
  /** Programs of this machine that are put in with the libraries they need, at the same paths. */
  readonly programs?: readonly string[];
  /** Whether it has the libraries that a program of this machine needs, without the program. */
  readonly librariesOf?: string;
  /** Without busybox: nothing but the files. */
  readonly bare?: boolean;
}

/** Makes an image of Debian's static busybox and some files; answers its id. */
export async function importImage({ api, folder }: TestEngine, image: TestImage): Promise<string> {
  const root = await mkdtemp(join(folder, "root-"));
  await chmod(root, 0o755);
  for (const name of ["tmp", "etc", "run", "bin"]) await mkdir(join(root, name));
  await writeFile(join(root, "etc/passwd"), "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
  if (image.bare !== true) {
    await copyFile("/bin/busybox", join(root, "bin/busybox"));
    const { stdout } = await promisify(execFile)("/bin/busybox", ["--list"]);
    for (const name of stdout.trim().split("\n")) {
      if (name !== "busybox") await symlink("busybox", join(root, "bin", name));
    }
  }
  const libraries = [...(image.programs ?? []), ...(image.librariesOf === undefined ? [] : [image.librariesOf])];
  const paths = new Set(image.programs ?? []);
  for (const program of libraries) for (const path of await librariesOf(program)) paths.add(path);
  for (const path of paths) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await copyFile(path, join(root, path));
  }
  for (const [path, content] of Object.entries(image.files ?? {})) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), content, { mode: 0o755 });
  }
  const [repo = "", tag = "latest"] = image.name.split(":");
  const changes = (image.changes ?? []).map((change) => `&changes=${encodeURIComponent(change)}`).join("");
  const answer = await api.stream("POST", `/images/create?fromSrc=-&repo=${repo}&tag=${tag}${changes}`, {
    content: { type: "application/x-tar", source: packTar(root) },
  });
  let said = "";
  for await (const chunk of answer as AsyncIterable<Buffer>) said += chunk.toString();
  await rm(root, { recursive: true, force: true });
  const [id] = /sha256:[0-9a-f]{64}/.exec(said) ?? [];
  if (id === undefined) throw new Error(`image ${image.name} was not made: ${said}`);
  return id;
}

/** The shared libraries that a program is linked to, as paths of this machine. */
async function librariesOf(program: string): Promise<readonly string[]> {
  // A static program is an error to it.
  const { stdout } = await promisify(execFile)("ldd", [program]).catch(() => ({ stdout: "" }));
  return [...stdout.matchAll(/(\/\S+\/([^/\s]+\.so[^/\s]*)) \(0x/g)]
    .map(([, path = ""]) => path)
    .filter((path) => basename(path) !== "");
}
