import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex, PassThrough, Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { after, before, beforeEach, test } from "node:test";
import { ZipFile } from "yazl";
import { VirtualClock } from "../core/clock.ts";
import { KoineError, type ErrorCode } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { BuildRecipe, RuntimeLaunch } from "../runtimes/runtime.ts";
import type { SandboxDriver, SandboxEnd, SandboxRequest } from "../sandbox/sandbox.ts";
import type { Blobs } from "../store/store.ts";
import { CodePackages } from "./packages.ts";

class MemoryBlobs implements Blobs {
  readonly kept = new Map<string, Buffer>();
  opened = 0;

  async put(key: string, source: Readable): Promise<{ readonly bytes: number }> {
    const bytes = await buffer(source);
    if (!this.kept.has(key)) this.kept.set(key, bytes);
    return { bytes: bytes.length };
  }
  async open(key: string): Promise<Readable | null> {
    this.opened++;
    const bytes = this.kept.get(key);
    return bytes === undefined ? null : Readable.from([bytes]);
  }
  async has(key: string): Promise<boolean> {
    return this.kept.has(key);
  }
  async delete(key: string): Promise<void> {
    this.kept.delete(key);
  }
  async list(): Promise<readonly string[]> {
    return [...this.kept.keys()];
  }
}

/** Runs the command on this machine, in the folder that is mounted at /code. */
class InPlaceDriver implements SandboxDriver {
  readonly name = "in place";
  readonly requests: SandboxRequest[] = [];
  async inspect(): Promise<[]> {
    return [];
  }
  async create(request: SandboxRequest): ReturnType<SandboxDriver["create"]> {
    this.requests.push(request);
    const [command = "", ...args] = request.command;
    const cwd = request.mounts.find((mount) => mount.target === request.cwd)?.source;
    const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    let stopped = false;
    const ended = new Promise<SandboxEnd>((resolve) => {
      child.on("close", (code) => resolve(stopped ? { kind: "stopped" } : { kind: "exited", exitCode: code ?? 1 }));
    });
    const stop = (): Promise<SandboxEnd> => {
      stopped = true;
      child.kill("SIGKILL");
      return ended;
    };
    const channel = new Duplex({ read: () => {}, write: (_chunk, _encoding, done) => done() });
    return { id: request.id, channel, stdout: child.stdout, stderr: child.stderr, ended, stop, memory: () => null };
  }
  async sweep(): Promise<number> {
    return 0;
  }
  async close(): Promise<void> {}
}

const signal = new AbortController().signal;
let root: string;
let directory: string;
let count = 0;
let blobs: MemoryBlobs;
let driver: InPlaceDriver;
let clock: VirtualClock;
let packages: CodePackages;

before(async () => {
  root = await mkdtemp(join(tmpdir(), "koine-packages-"));
});
after(() => rm(root, { recursive: true, force: true }));
beforeEach(async () => {
  directory = join(root, `${++count}`);
  blobs = new MemoryBlobs();
  driver = new InPlaceDriver();
  clock = new VirtualClock();
  packages = await open({});
});

function open(changed: Partial<Record<keyof typeof limits, number>>): Promise<CodePackages> {
  const installEnvironment = async () => ({
    variables: { HTTPS_PROXY: "http://proxy" },
    files: new Map([["npmrc", Buffer.from("fund=false")]]),
    folders: new Map<string, string>(),
  });
  return CodePackages.open({ blobs, directory, limits: { ...limits, ...changed }, driver, clock, installEnvironment });
}

function archive(files: Readonly<Record<string, string>>): Readable {
  const zip = new ZipFile();
  for (const [name, text] of Object.entries(files)) zip.addBuffer(Buffer.from(text), name, { mode: 0o100644 });
  zip.end();
  return Readable.from(zip.outputStream);
}

async function receive(files: Readonly<Record<string, string>>): Promise<string> {
  return (await packages.receive(archive(files), signal)).digest;
}

const withCode = (code: ErrorCode) => (thrown: unknown) => thrown instanceof KoineError && thrown.code === code;

/** A runtime whose installer is a line of shell. */
function runtime(script: string, recipe: Partial<BuildRecipe> = {}): { name: string; launch: RuntimeLaunch } {
  const build: BuildRecipe = {
    lockFiles: ["package-lock.json", "requirements.txt"],
    installed: "node_modules",
    command: (lockFile) => ({ command: ["/bin/sh", "-c", script], environment: { LOCK: lockFile }, mounts: [] }),
    ...recipe,
  };
  return {
    name: "nodejs26.x",
    launch: { command: [], environment: {}, mounts: [], overheadBytes: 0, version: "26.1.0", build },
  };
}

function quiet(): {
  readonly onOutput: (line: string) => void;
  readonly signal: AbortSignal;
  readonly lines: string[];
} {
  const lines: string[] = [];
  return { lines, signal, onOutput: (line) => void lines.push(line) };
}

const npm = { "package.json": "{}", "package-lock.json": "{}", "index.js": "1" };

test("a package that was received is unpacked, stored and listed", async () => {
  const received = await packages.receive(archive({ "index.js": "1", "lib/a.js": "22" }), signal);
  assert.deepEqual([received.files, received.bytes], [2, 3]);
  assert.equal(await readFile(join(await packages.folder(received.digest, signal), "lib/a.js"), "utf8"), "22");
  assert.ok(await packages.has(received.digest));
  assert.deepEqual(await packages.list(), [received.digest]);
  assert.deepEqual(await readdir(join(directory, "temporary")), []);
});

test("receiving the same tree again changes nothing", async () => {
  const first = await receive({ "index.js": "1" });
  const bytes = blobs.kept.get(first);
  const found = await stat(await packages.folder(first, signal));
  assert.equal(await receive({ "index.js": "1" }), first);
  assert.equal(blobs.kept.get(first), bytes);
  assert.equal((await stat(await packages.folder(first, signal))).ino, found.ino);
  assert.deepEqual(await readdir(join(directory, "temporary")), []);
});

test("a tree that this node lost is unpacked again, once for all who ask", async () => {
  const digest = await receive({ "index.js": "1" });
  await rm(join(directory, "trees"), { recursive: true });
  packages = await open({});
  const folders = await Promise.all([1, 2, 3].map(() => packages.folder(digest, signal)));
  assert.equal(await readFile(join(folders[2] ?? "", "index.js"), "utf8"), "1");
  assert.equal(blobs.opened, 1);
});

test("a package that nobody sent is not found", async () => {
  await assert.rejects(packages.folder(`sha256:${"0".repeat(64)}`, signal), withCode("code-not-found"));
  await assert.rejects(packages.folder("../../etc", signal), withCode("code-not-found"));
  assert.equal(await packages.has("../../etc"), false);
});

test("a stored archive that is not what its digest says is not run", async () => {
  const digest = await receive({ "index.js": "1" });
  const other = await receive({ "index.js": "2" });
  blobs.kept.set(digest, blobs.kept.get(other) ?? Buffer.alloc(0));
  await rm(join(directory, "trees"), { recursive: true });
  packages = await open({});
  await assert.rejects(packages.folder(digest, signal), withCode("storage-failed"));
  assert.deepEqual(await readdir(join(directory, "trees")), []);
});

test("an archive above the limit is refused as soon as it is too large", async () => {
  packages = await open({ archiveBytesMax: 1000 });
  let sent = 0;
  const endless = Readable.from(
    (async function* () {
      for (;;) yield Buffer.alloc(100, ++sent);
    })(),
  );
  await assert.rejects(packages.receive(endless, signal), withCode("payload-too-large"));
  assert.ok(sent < 1000, `${sent} chunks were taken`);
  assert.deepEqual(await readdir(join(directory, "temporary")), []);
});

test("nothing is left of an upload that broke off, was aborted or is no archive", async () => {
  const broken = new PassThrough();
  broken.write("PK");
  const breaking = packages.receive(broken, signal);
  broken.destroy();
  await assert.rejects(breaking, withCode("client-closed-request"));
  const abort = new AbortController();
  const aborted = packages.receive(new PassThrough(), abort.signal);
  abort.abort();
  await assert.rejects(aborted, { name: "AbortError" });
  await assert.rejects(packages.receive(Readable.from(["no archive"]), signal), withCode("invalid-package"));
  assert.deepEqual(await readdir(join(directory, "temporary")), []);
  assert.deepEqual(await readdir(join(directory, "trees")), []);
  assert.deepEqual(await packages.list(), []);
});

test("a process that is killed in the middle leaves nothing to the next one", async () => {
  const script = `
    import { CodePackages } from ${JSON.stringify(import.meta.resolve("./packages.ts"))};
    import { limits } from ${JSON.stringify(import.meta.resolve("../core/limits.ts"))};
    const packages = await CodePackages.open({ directory: process.argv[1], limits });
    await packages.receive(process.stdin, new AbortController().signal);`;
  const args = ["--input-type=module", "--eval", script, directory];
  const child = spawn(process.execPath, args, { stdio: ["pipe", "inherit", "inherit"] });
  child.stdin.on("error", () => {});
  child.stdin.write(Buffer.alloc(200_000));
  const temporary = join(directory, "temporary");
  // The folder is made anew when the other process opens it.
  const names = (): Promise<string[]> => readdir(temporary, { recursive: true }).catch(() => []);
  const begun = async () => (await names()).some((name) => name.endsWith(".zip"));
  while (!(await begun())) await new Promise((resolve) => setImmediate(resolve));
  const gone = new Promise((resolve) => child.on("close", resolve));
  child.kill("SIGKILL");
  await gone;
  assert.equal((await readdir(temporary)).length, 1);
  packages = await open({});
  assert.deepEqual(await readdir(temporary), []);
  assert.deepEqual(await readdir(join(directory, "trees")), []);
});

test("deleting removes the archive, the tree and what was built from it, but not what others share", async () => {
  const one = await receive(npm);
  const two = await receive({ ...npm, "index.js": "2" });
  const install = runtime("mkdir node_modules; echo x > node_modules/x");
  await packages.withDependencies(one, install, quiet());
  const kept = await packages.withDependencies(two, install, quiet());
  await packages.delete(one);
  assert.deepEqual(await packages.list(), [two]);
  await assert.rejects(packages.folder(one, signal), withCode("code-not-found"));
  assert.equal((await readdir(join(directory, "built"))).length, 1);
  assert.equal((await readdir(join(directory, "installed"))).length, 1);
  assert.equal(await readFile(join(kept.folder, "node_modules/x"), "utf8"), "x\n");
  await packages.delete(two);
  for (const name of ["trees", "built", "installed", "temporary"]) {
    assert.deepEqual(await readdir(join(directory, name)), [], name);
  }
});

test("several packages in one folder: what two have is the later one's, and it goes with any of them", async () => {
  const one = await receive({ "a/one": "1", same: "1", "b/file": "1", c: "1" });
  const two = await receive({ "a/two": "2", same: "2", b: "2", "c/file": "2" });
  const folder = await packages.overlaid([one, two], signal);
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = found.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const texts = files.map(async (file) => [file.slice(folder.length + 1), await readFile(file, "utf8")] as const);
  assert.deepEqual(Object.fromEntries(await Promise.all(texts)), {
    "a/one": "1",
    "a/two": "2",
    same: "2",
    b: "2",
    "c/file": "2",
  });
  assert.equal(await packages.overlaid([one, two], signal), folder);
  assert.notEqual(await packages.overlaid([two, one], signal), folder);
  assert.equal(await packages.overlaid([one], signal), await packages.folder(one, signal));
  await packages.delete(two);
  assert.deepEqual(await readdir(join(directory, "overlaid")), []);
});

test("a package without a lock file, with its dependencies, or of a runtime without any runs as it is", async () => {
  const install = runtime("exit 1");
  const plain = await receive({ "index.js": "1" });
  const complete = await receive({ ...npm, "node_modules/x/index.js": "1" });
  const none = { ...install, launch: { ...install.launch, build: null } };
  for (const [digest, used] of [
    [plain, install],
    [complete, install],
    [await receive(npm), none],
  ] as const) {
    const folder = await packages.folder(digest, signal);
    assert.deepEqual(await packages.withDependencies(digest, used, quiet()), { digest, folder });
  }
  assert.equal(driver.requests.length, 0);
});

test("dependencies are installed beside the code, and the output is passed on", async () => {
  const digest = await receive(npm);
  const heard = quiet();
  const install = runtime(
    "mkdir -p node_modules/x; printf 'one\\ntwo\\rthree' >&2; echo 7 > node_modules/x/i.js; chmod 4755 node_modules/x/i.js",
  );
  const built = await packages.withDependencies(digest, install, heard);
  assert.ok(built.digest.startsWith(`${digest}.`));
  assert.equal(await readFile(join(built.folder, "index.js"), "utf8"), "1");
  assert.equal(await readFile(join(built.folder, "node_modules/x/i.js"), "utf8"), "7\n");
  assert.equal((await stat(join(built.folder, "node_modules/x/i.js"))).mode & 0o7777, 0o755);
  assert.deepEqual(heard.lines, ["one", "two", "three"]);
  assert.deepEqual((await readdir(await packages.folder(digest, signal))).sort(), Object.keys(npm).sort());
  const [request] = driver.requests;
  assert.equal(request?.network, "host");
  assert.equal(request.environment["HTTPS_PROXY"], "http://proxy");
  assert.equal(request.environment["LOCK"], "package-lock.json");
  assert.deepEqual(
    request.mounts.map((mount) => [mount.target, mount.writable ?? false]),
    [
      ["/koine/install", false],
      ["/code", true],
    ],
  );
  assert.deepEqual(await readdir(join(directory, "temporary")), []);
});

test("equal dependencies are installed once, also by another process and for other code", async () => {
  const install = runtime("mkdir node_modules; ls > node_modules/seen");
  const one = await receive(npm);
  const two = await receive({ ...npm, "index.js": "2" });
  const built = await Promise.all([one, two, one].map((digest) => packages.withDependencies(digest, install, quiet())));
  packages = await open({});
  await packages.withDependencies(one, install, quiet());
  await packages.withDependencies(await receive({ ...npm, "index.js": "3" }), install, quiet());
  assert.equal(driver.requests.length, 1);
  assert.equal(new Set(built.map(({ folder }) => folder)).size, 2);
  // What may be shared was made from what is shared alone.
  assert.equal(
    await readFile(join(built[0]?.folder ?? "", "node_modules/seen"), "utf8"),
    "node_modules\npackage-lock.json\npackage.json\n",
  );
});

test("an installation that runs scripts of the package sees all of it and is not shared", async () => {
  const install = runtime("mkdir node_modules; cp index.js node_modules/copy");
  const scripted = { ...npm, "package.json": '{"scripts":{"postinstall":"node index.js"}}' };
  for (const text of ["1", "2"]) {
    const { folder } = await packages.withDependencies(
      await receive({ ...scripted, "index.js": text }),
      install,
      quiet(),
    );
    assert.equal(await readFile(join(folder, "node_modules/copy"), "utf8"), text);
  }
  assert.equal(driver.requests.length, 2);
});

test("another lock file, manifest or interpreter is another installation", async () => {
  const install = runtime("mkdir node_modules");
  const newer = { ...install, launch: { ...install.launch, version: "27.0.0" } };
  await packages.withDependencies(await receive(npm), install, quiet());
  await packages.withDependencies(await receive({ ...npm, "package-lock.json": "{ }" }), install, quiet());
  await packages.withDependencies(await receive({ ...npm, "package.json": "{ }" }), install, quiet());
  await packages.withDependencies(await receive(npm), newer, quiet());
  assert.equal(driver.requests.length, 4);
});

test("an installer that fails is reported with the end of its output, and runs again the next time", async () => {
  const digest = await receive(npm);
  const install = runtime("seq 1 5000; echo no such version >&2; exit 3");
  for (const attempt of [1, 2]) {
    await assert.rejects(packages.withDependencies(digest, install, quiet()), (thrown: unknown) => {
      assert.ok(thrown instanceof KoineError && thrown.code === "build-failed", String(thrown));
      assert.match(thrown.message, /exit code 3/);
      const output = String(thrown.values["output"]);
      assert.match(output, /no such version/);
      assert.match(output, /4999\n5000/);
      assert.ok(output.length <= 4096);
      return true;
    });
    assert.equal(driver.requests.length, attempt);
  }
  assert.deepEqual(await readdir(join(directory, "installed")), []);
  assert.deepEqual(await readdir(join(directory, "temporary")), []);
});

test("an installer that never ends is stopped after its time", async () => {
  const digest = await receive(npm);
  const started = Promise.withResolvers<void>();
  const installing = packages.withDependencies(digest, runtime("echo started; exec sleep 1000"), {
    signal,
    onOutput: () => started.resolve(),
  });
  await started.promise;
  await clock.advance(limits.buildTimeoutMs);
  await assert.rejects(installing, (thrown: unknown) => {
    assert.ok(thrown instanceof KoineError && thrown.code === "build-failed");
    assert.match(thrown.message, /longer than 600 s/);
    return true;
  });
});

test("who gives up leaves the others to wait; when nobody waits the installer is stopped", async () => {
  const digest = await receive(npm);
  const go = join(directory, "go");
  const install = runtime(`echo started; while ! test -e ${go}; do sleep 0.02; done; mkdir node_modules`);
  const started = Promise.withResolvers<void>();
  const patient = packages.withDependencies(digest, install, { signal, onOutput: () => started.resolve() });
  await started.promise;
  const impatient = new AbortController();
  const leaving = packages.withDependencies(digest, install, { signal: impatient.signal, onOutput: () => {} });
  impatient.abort();
  await assert.rejects(leaving, { name: "AbortError" });
  await writeFile(go, "");
  await patient;
  assert.equal(driver.requests.length, 1);

  const other = await receive({ ...npm, "package.json": "{ }" });
  const lonely = new AbortController();
  const again = Promise.withResolvers<void>();
  const alone = packages.withDependencies(other, runtime("echo started; exec sleep 1000"), {
    signal: lonely.signal,
    onOutput: () => again.resolve(),
  });
  await again.promise;
  lonely.abort();
  await assert.rejects(alone, { name: "AbortError" });
  await packages.close();
});

test("an installer cannot make the platform follow a link", async () => {
  const digest = await receive(npm);
  await writeFile(join(directory, "secret"), "1");
  await chmod(directory, 0o755);
  const linking = packages.withDependencies(digest, runtime(`ln -s ${directory} node_modules`), quiet());
  await assert.rejects(linking, withCode("build-failed"));
  const nested = runtime(`ln -s ${directory} deps`, { installed: "deps/trees" });
  await assert.rejects(packages.withDependencies(digest, nested, quiet()), withCode("build-failed"));
  assert.ok((await stat(join(directory, "trees"))).isDirectory());
});

test("an installer that installs nothing has installed an empty folder", async () => {
  const built = await packages.withDependencies(await receive(npm), runtime("true"), quiet());
  assert.deepEqual(await readdir(join(built.folder, "node_modules")), []);
});

test("dependencies above the limits are refused", async () => {
  packages = await open({ packageFilesMax: 3 });
  const install = runtime("mkdir node_modules; touch node_modules/1 node_modules/2 node_modules/3 node_modules/4");
  await assert.rejects(packages.withDependencies(await receive(npm), install, quiet()), withCode("build-failed"));
  assert.deepEqual(await readdir(join(directory, "installed")), []);
});
