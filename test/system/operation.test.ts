import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { ActivationView, FunctionView, InvokeAccepted, Page, VersionView } from "../../src/core/api.ts";
import {
  activationOf,
  call,
  commandsWith,
  deploy,
  errorOf,
  eventually,
  idOf,
  manage,
  read,
  send,
  upload,
  zip,
} from "./api.ts";
import { type CommandResult, type RunningPlatform, runKoine, startPlatform } from "./platform.ts";

const NOBODY = 65_534;
const AS_NOBODY = ["setpriv", "--reuid", String(NOBODY), "--regid", String(NOBODY), "--clear-groups"];
const SLOW = `export default async (request) => {
  console.log("began");
  await new Promise((resolve) => setTimeout(resolve, Number(new URL(request.url).searchParams.get("ms"))));
  return new Response("ended");
};`;
const KEPT = "export default () => new Response(process.env.WORD);";

let platform: RunningPlatform;
let scratch: string;

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), "koine-operation-"));
  chmodSync(scratch, 0o755);
  platform = await startPlatform();
  await deploy(platform, "slow", SLOW);
});

after(async () => {
  await platform?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

/** A start that must be refused, by one error and exit code 1. */
async function refusedStart(
  args: readonly string[],
  options: { readonly prefix?: readonly string[]; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<CommandResult> {
  const result = await runKoine(["up", "--port", "0", ...args], { timeoutMs: 30_000, ...options });
  assert.equal(result.code, 1, result.stdout + result.stderr);
  assert.equal(result.stdout, "");
  assert.match(result.stderr, /^error: .+\n {2}hint: .+\n {2}code [a-z-]+ {2}fault platform\n$/);
  return result;
}

test("a port that is taken, and an address that is not this machine's, are named", async () => {
  const { port } = new URL(platform.url);
  const taken = await refusedStart(["--port", port, "--data", join(scratch, "port")]);
  assert.match(taken.stderr, new RegExp(`Port ${port} on 127\\.0\\.0\\.1 is already in use[^]*code port-in-use`));
  const foreign = await refusedStart(["--host", "192.0.2.1", "--data", join(scratch, "port")], {
    env: { KOINE_TOKEN: "0123456789abcdef" },
  });
  assert.match(foreign.stderr, /192\.0\.2\.1[^]*code invalid-configuration/);
});

test("a second platform on the same data directory is refused, and the first one goes on", async () => {
  const running = call(platform, "slow?ms=1500");
  const second = await refusedStart(["--data", platform.dataDirectory]);
  assert.match(second.stderr, /Another koine is running on .+\n[^]*code data-directory-in-use/);
  assert.equal((await running).text, "ended");
});

test("a data directory that cannot be used is refused with the reason", async () => {
  const file = join(scratch, "file");
  writeFileSync(file, "");
  assert.match((await refusedStart(["--data", file])).stderr, /not a folder|EEXIST[^]*code data-directory-unusable/);
  const junk = join(scratch, "junk");
  mkdirSync(junk);
  writeFileSync(join(junk, "koine.db"), Buffer.alloc(5_000, 7));
  assert.match((await refusedStart(["--data", junk])).stderr, /code data-directory-unusable/);
  const keyless = join(scratch, "keyless");
  mkdirSync(keyless);
  writeFileSync(join(keyless, "secrets.key"), "not a key", { mode: 0o600 });
  assert.match((await refusedStart(["--data", keyless])).stderr, /code secret-key-unusable/);
});

test("a data directory of a newer koine is refused, and left as it is", async () => {
  for (const name of ["koine.db", "journal.db"]) {
    const folder = join(scratch, `newer-${name}`);
    mkdirSync(folder);
    const database = new DatabaseSync(join(folder, name));
    database.exec("PRAGMA user_version = 999");
    database.close();
    assert.match(
      (await refusedStart(["--data", folder])).stderr,
      /format 999, this one knows \d+\)[^]*code data-version-newer/,
    );
    const again = new DatabaseSync(join(folder, name));
    assert.equal(again.prepare("PRAGMA user_version").get()?.["user_version"], 999);
    again.close();
  }
});

test("settings that make no sense are refused before anything is opened", async () => {
  const data = join(scratch, "settings");
  const cases: readonly [readonly string[], Readonly<Record<string, string>>, string][] = [
    [["--host", "0.0.0.0"], {}, "unsafe-host"],
    [[], { KOINE_HOST: "::" }, "unsafe-host"],
    [[], { KOINE_TOKEN: "short" }, "invalid-configuration"],
    [["--token-file", join(scratch, "none")], {}, "invalid-configuration"],
  ];
  for (const [args, env, code] of cases) {
    assert.match((await refusedStart(["--data", data, ...args], { env })).stderr, new RegExp(`code ${code} `));
  }
  for (const args of [["--port", "99999"], ["--port", "x"], ["--sandbox", "vm"], ["--unknown"]]) {
    const { code, stderr } = await runKoine(["up", "--data", data, ...args], { timeoutMs: 30_000 });
    assert.equal(code, 2, stderr);
  }
  assert.equal(existsSync(data), false);
});

test("an ordinary user can run the platform, with its functions isolated", { skip: withoutNobody() }, async () => {
  const unwritable = await refusedStart(["--data", join(scratch, "not-mine")], { prefix: AS_NOBODY });
  assert.match(unwritable.stderr, /EACCES[^]*code data-directory-unusable/);
  const folder = join(scratch, "own");
  mkdirSync(folder);
  chownSync(folder, NOBODY, NOBODY);
  const options = {
    prefix: AS_NOBODY,
    dataDirectory: join(folder, "data"),
    sandbox: "process",
    env: { HOME: folder },
  } as const;
  await using ordinary = await startPlatform(options);
  const source = `import { readdirSync, existsSync } from "node:fs";
    export default async (request) => {
      if (request.url.endsWith("/eat")) for (const kept = []; ; ) kept.push(Buffer.alloc(8e6, 1));
      return Response.json({ processes: readdirSync("/proc").filter(Number).length, data: existsSync(${JSON.stringify(folder)}) });
    };`;
  await deploy(ordinary, "inside", source, { spec: { memoryBytesMax: 128 << 20 } });
  const seen = JSON.parse((await call(ordinary, "inside")).text) as { processes: number; data: boolean };
  assert.ok(seen.processes <= 3, `${seen.processes} processes`);
  assert.equal(seen.data, false);
  errorOf(await call(ordinary, "inside/eat"), "out-of-memory");
  assert.equal((await call(ordinary, "inside")).status, 200);
  assert.equal(await ordinary.stop(), 0);
});

test(
  "on a full disk what was acknowledged stays, changes are refused, calls go on, and room is all it takes",
  { skip: withoutMounts() },
  async () => {
    const folder = join(scratch, "small");
    mkdirSync(folder);
    const mount = `mount -t tmpfs -o size=12m tmpfs ${folder} && exec "$@"`;
    await using small = await startPlatform({
      prefix: ["unshare", "--mount", "sh", "-c", mount, "sh"],
      dataDirectory: join(folder, "data"),
    });
    const inside = `/proc/${small.pid}/root${folder}`;
    const { version } = await deploy(small, "kept", KEPT, { spec: { environment: { WORD: "kept" } } });
    const secret = (name: string) =>
      manage(small, "PUT", `/v1/namespaces/default/secrets/${name}`, { value: "x".repeat(40_000) });
    assert.equal((await secret("before")).status, 201);
    const accept = () =>
      send(small, "/fn/kept", { method: "POST", headers: { prefer: "respond-async" }, body: "x".repeat(60_000) });
    const accepted = await accept();
    assert.equal(accepted.status, 202);

    fill(join(inside, "filling"));
    for (const attempt of [
      accept,
      () => secret("during"),
      () => upload(small, zip([{ path: "index.mjs", content: "export default () => new Response()" }])),
      () =>
        manage(small, "PUT", "/v1/namespaces/default/functions/kept", {
          ...version.spec,
          dialect: undefined,
          environment: { WORD: "changed" },
        }),
    ]) {
      const refused = await attempt();
      assert.equal(refused.status, 507, refused.text);
      errorOf(refused, "storage-full");
      assert.deepEqual(await texts(small, "kept", 3), ["kept", "kept", "kept"]);
    }
    assert.equal((await send(small, "/v1/namespaces/default/activations")).status, 200);
    rmSync(join(inside, "filling"));

    await eventually("that room is noticed", async () => ((await accept()).status === 202 ? true : null));
    assert.equal((await secret("afterwards")).status, 201);
    await deploy(small, "another", "export default () => new Response('made')");
    assert.equal((await call(small, "another")).text, "made");
    const names = await read<Page<{ name: string }>>(small, "/v1/namespaces/default/secrets");
    assert.deepEqual(
      names.items.map(({ name }) => name),
      ["afterwards", "before"],
    );
    await eventually("the end of what was accepted", async () =>
      (await activationOf(small, idOf(accepted))).state === "succeeded" ? true : null,
    );
    assert.equal(await small.stop(), 0);
  },
);

test("Ctrl-C lets running calls end, takes no more, and exits with 0", async () => {
  startedAtMs = Date.now();
  const running = call(platform, "slow?ms=1500");
  const accepted = await send(platform, "/fn/slow?ms=1200", { headers: { prefer: "respond-async" } });
  await begun("slow", 2);
  process.kill(platform.pid, "SIGINT");
  await eventually("that it stops", () => (platform.output.includes("stopping") ? true : null));
  const late = await send(platform, "/fn/slow?ms=1");
  assert.deepEqual([late.status, late.headers["retry-after"]], [503, "1"]);
  errorOf(late, "shutting-down");
  assert.equal((await send(platform, "/readyz")).status, 503);
  assert.equal((await running).text, "ended");
  assert.equal(await platform.ended, 0);
  await platform.restart();
  assert.equal((await activationOf(platform, idOf(accepted))).state, "succeeded");
});

test("a second Ctrl-C stops at once, with 130, and leaves no process", async () => {
  const marker = `42${process.pid}1`;
  await deploy(
    platform,
    "sleeper",
    `import { spawn } from "node:child_process";
    export default () => { console.log("began"); spawn("/bin/sleep", ["${marker}"]); return new Promise(() => {}); };`,
  );
  const running = call(platform, "sleeper").then(
    () => "answered",
    () => "cut",
  );
  await begun("sleeper", 1);
  await eventually("the function's child", () => (commandsWith(marker) > 0 ? true : null));
  process.kill(platform.pid, "SIGINT");
  await eventually("that it stops", () => (platform.output.includes("Ctrl-C again") ? true : null));
  let ending: number | string | null = null;
  void platform.ended.then((how) => (ending = how));
  await eventually("its end", () => {
    // Presses too near to the first one count as the same.
    if (ending === null && !platform.output.includes("stopping at once")) process.kill(platform.pid, "SIGINT");
    return ending;
  });
  assert.equal(ending, 130);
  assert.ok(["answered", "cut"].includes(await running));
  await eventually("the end of the function's child", () => (commandsWith(marker) === 0 ? true : null));
  assert.deepEqual(traces(), []);
  await platform.restart();
});

test("after kill -9 at any moment everything acknowledged is there, what was accepted runs, and nothing else is left", async () => {
  const arrived = new Set<string>();
  const sink = createServer((incoming, response) => {
    arrived.add(incoming.url ?? "");
    // A kept connection that ends just when it is used again would be a failed attempt.
    response.writeHead(200, { connection: "close" }).end();
  });
  await new Promise<void>((resolve) => sink.listen(0, "127.0.0.1", resolve));
  const { port } = sink.address() as AddressInfo;
  const address = `http://127.0.0.1:${port}`;
  // What listens on this machine is reached by functions that may.
  const allowed = { args: ["--allow-network", `localhost:${port}`] };
  await platform.restart(allowed);
  const marker = `53${process.pid}9`;
  const random = seeded(20_261_123);
  const acknowledged = {
    versions: new Map<string, number>(),
    secrets: new Set<string>(),
    accepted: new Map<string, string>(),
  };
  try {
    await deploy(
      platform,
      "note",
      `import { spawn } from "node:child_process";
    const child = spawn("/bin/sleep", ["${marker}"]);
    export default async (request) => { await fetch("${address}/" + await request.text()); return new Response("noted"); };`,
    );
    for (let round = 0; round < 10; round++) {
      const before = traces();
      await changeUntilKilled(round, 1 + Math.floor(random() * 14), acknowledged);
      await platform.restart(allowed);
      for (const trace of before) assert.ok(!traces().includes(trace), `${trace} was left`);
      await allThere(acknowledged);
    }
    for (const [id, note] of acknowledged.accepted) {
      let shown = "";
      const activation = await eventually(`the end of ${id}`, async () => {
        const answer = await send(platform, `/v1/namespaces/default/activations/${id}`);
        shown = answer.text;
        return ended(answer);
      }).catch((thrown: unknown) => assert.fail(`${String(thrown)}\n${shown}\n${platform.output}`));
      assert.equal(activation.state, "succeeded", JSON.stringify(activation));
      assert.ok(arrived.has(`/${note}`), `${note} ran`);
    }
  } finally {
    sink.close();
  }
  assert.equal(await stopKeeping(), 0);
  await eventually("the end of all children", () => (commandsWith(marker) === 0 ? true : null));
  assert.deepEqual(traces(), []);
  await platform.restart();
});

interface Acknowledged {
  /** The newest version of each function. */
  readonly versions: Map<string, number>;
  readonly secrets: Set<string>;
  /** What each accepted invocation must note, by its id. */
  readonly accepted: Map<string, string>;
}

/** Deploys, sets secrets and enqueues at once, and kills the platform as soon as so many of all were acknowledged. */
async function changeUntilKilled(round: number, count: number, acknowledged: Acknowledged): Promise<void> {
  let left = count;
  let killed = false;
  const each = async (change: (index: number) => Promise<void>): Promise<void> => {
    for (let index = 0; !killed; index++) {
      try {
        await change(index);
      } catch (thrown) {
        if (killed) return;
        throw thrown;
      }
      if (--left > 0 || killed) continue;
      killed = true;
      await platform.kill9();
    }
  };
  await Promise.all([
    each(async (index) => {
      const name = `deployed-${index % 3}`;
      const { version } = await deploy(platform, name, `export default () => new Response("${round}.${index}")`, {
        spec: { check: false },
      });
      acknowledged.versions.set(name, version.number);
    }),
    each(async (index) => {
      const answer = await manage(platform, "PUT", `/v1/namespaces/default/secrets/s-${round}-${index}`, {
        value: "v",
      });
      if (answer.complete && answer.status === 201) acknowledged.secrets.add(`s-${round}-${index}`);
    }),
    each(async (index) => {
      const note = `n-${round}-${index}`;
      const answer = await send(platform, "/fn/note", {
        method: "POST",
        headers: { prefer: "respond-async" },
        body: note,
      });
      if (answer.complete && answer.status === 202)
        acknowledged.accepted.set((JSON.parse(answer.text) as InvokeAccepted).activationId, note);
    }),
  ]);
}

async function allThere({ versions, secrets }: Acknowledged): Promise<void> {
  for (const [name, number] of versions) {
    const shown = await read<FunctionView>(platform, `/v1/namespaces/default/functions/${name}`);
    assert.ok(shown.liveVersion >= number, `${name} is at ${shown.liveVersion}, not at ${number}`);
    const { items } = await read<Page<VersionView>>(platform, `/v1/namespaces/default/functions/${name}/versions`);
    assert.ok(items.some((version) => version.number === number));
    assert.match((await call(platform, `${name}:${number}`)).text, /^\d+\.\d+$/);
  }
  const { items } = await read<Page<{ name: string }>>(platform, "/v1/namespaces/default/secrets?limit=1000");
  const there = new Set(items.map(({ name }) => name));
  for (const name of secrets) assert.ok(there.has(name), `secret ${name}`);
}

function ended(answer: { readonly status: number; readonly text: string }): ActivationView | null {
  if (answer.status !== 200) return null;
  const activation = JSON.parse(answer.text) as ActivationView;
  return activation.state === "queued" || activation.state === "running" ? null : activation;
}

/** Stops the platform without removing its data. */
async function stopKeeping(): Promise<number | string> {
  process.kill(platform.pid, "SIGTERM");
  return await platform.ended;
}

/** Waits until so many calls of a function have written that they began. */
async function begun(name: string, count: number): Promise<void> {
  await eventually(`the beginning of ${count} calls of ${name}`, async () => {
    const { items } = await read<Page<{ line: string; time: string }>>(
      platform,
      `/v1/namespaces/default/functions/${name}/logs?since=${startedAtMs}`,
    );
    return items.filter(({ line }) => line === "began").length >= count ? true : null;
  });
  startedAtMs = Date.now() + 1;
}
let startedAtMs = Date.now();

/** Cgroups and mounts of this platform on the machine: an entry for each sandbox. */
function traces(): string[] {
  const tag = createHash("sha256").update(platform.dataDirectory).digest("hex").slice(0, 12);
  const mounts = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .filter((line) => line.includes(platform.dataDirectory));
  const folders = existsSync("/sys/fs/cgroup") ? findFolders("/sys/fs/cgroup", `koine-${tag}`) : [];
  return [
    ...mounts,
    ...folders.flatMap((folder) =>
      readdirSync(folder, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => entry.name),
    ),
  ];
}

function findFolders(folder: string, name: string): string[] {
  const { stdout } = spawnSync("find", [folder, "-type", "d", "-name", name], { encoding: "utf8" });
  return stdout.split("\n").filter((line) => line !== "");
}

async function texts(target: RunningPlatform, name: string, count: number): Promise<string[]> {
  return await Promise.all(Array.from({ length: count }, async () => (await call(target, name)).text));
}

/** Writes until nothing more fits, in ever smaller pieces. */
function fill(path: string): void {
  for (const bytes of [1 << 16, 1 << 12, 1]) {
    try {
      for (;;) writeFileSync(path, Buffer.alloc(bytes), { flag: "a" });
    } catch (thrown) {
      assert.equal((thrown as NodeJS.ErrnoException).code, "ENOSPC");
    }
  }
}

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function withoutNobody(): string | false {
  if (process.getuid?.() !== 0) return "only root can become another user";
  const launcher = fileURLToPath(new URL("../../bin/koine.mjs", import.meta.url));
  const [file, ...args] = [...AS_NOBODY, "unshare", "--user", "test", "-r", launcher];
  return spawnSync(file, args).status === 0
    ? false
    : "an ordinary user cannot read this folder, or make user namespaces";
}

function withoutMounts(): string | false {
  return spawnSync("unshare", ["--mount", "true"]).status === 0 ? false : "this user cannot mount a file system";
}
