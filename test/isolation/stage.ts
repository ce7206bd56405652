import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { deploy, eventually, manage, upload, zip } from "../system/api.ts";
import { type RunningPlatform, startPlatform } from "../system/platform.ts";
import type { Aims, Attempt } from "./attacks.ts";

/** How much is between an attacker and the machine. */
export interface Level {
  /** As in the table of docs/security.md. */
  readonly name: string;
  readonly sandbox: "none" | "process";
  readonly asRoot: boolean;
}

/** What came of an attempt: what was got hold of, or what stood in the way. */
export type Result = { readonly took: string } | { readonly refused: string };

const ORDINARY_USER = 65_534;
const AS_ORDINARY_USER = ["setpriv", `--reuid=${ORDINARY_USER}`, `--regid=${ORDINARY_USER}`, "--clear-groups", "--"];
const isRoot = process.getuid?.() === 0;
const attackerFolder = join(import.meta.dirname, "attacker");

/** A platform with a function that attacks, a neighbour, and things of the machine to aim at. */
export interface Stage extends AsyncDisposable {
  readonly platform: RunningPlatform;
  readonly aims: Aims;
  try(attempt: Attempt): Promise<Result>;
}

/** A secret of a form that attackers look for. */
export function secretOf(owner: string): string {
  return `secret-of-the-${owner}-${randomBytes(8).toString("hex")}`;
}

const NEIGHBOUR = `const { readlinkSync, writeFileSync } = require("node:fs");
const code = "CODE";
exports.handler = async () => {
  console.log(process.env.VARIABLE);
  return { pid: process.pid, namespace: readlinkSync("/proc/self/ns/pid"), kept: [code, process.env.WORD].length };
};`;

/** @param upArguments further arguments of `koine up` */
export async function openStage(level: Level, program: string, upArguments: readonly string[] = []): Promise<Stage> {
  const become = isRoot && !level.asRoot ? AS_ORDINARY_USER : [];
  const own = (path: string): void => {
    if (become.length > 0) chownSync(path, ORDINARY_USER, ORDINARY_USER);
  };
  await using opened = new AsyncDisposableStack();
  const root = mkdtempSync(join(tmpdir(), "koine-stage-"));
  opened.defer(() => rmSync(root, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }));
  execFileSync("chmod", ["755", root]);
  const [folder, scratch, home] = ["machine", "scratch", "home"].map((name) => join(root, name));
  assert.ok(folder !== undefined && scratch !== undefined && home !== undefined);
  for (const path of [folder, scratch, home]) {
    mkdirSync(path);
    own(path);
  }
  const file = join(folder, "file");
  writeFileSync(file, secretOf("machine"));
  const socketPath = join(folder, "socket");
  const abstractName = `koine-${randomBytes(8).toString("hex")}`;
  const bystand = ["bystand", file, socketPath, abstractName, secretOf("command")];
  const [command, ...args] = [...become, program];
  const child = spawn(command, [...args, ...bystand], { stdio: ["pipe", "pipe", "inherit"] });
  opened.defer(() => endedOf(child));
  const bystander = JSON.parse(await firstLine(child)) as Aims["bystander"];
  const server = createServer((socket) => {
    socket.on("error", () => {}).end(secretOf("server"));
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(0, "::", () => resolve()));
  opened.defer(() => closed(server));
  const platform = await startPlatform({
    sandbox: level.sandbox,
    args: upArguments,
    prefix: become,
    dataDirectory: join(home, "data"),
    env: { HOME: home, TMPDIR: home, CANARY: secretOf("platform") },
  });
  opened.defer(() => platform.stop().then(() => {}));
  const neighbourPid = await deployNeighbour(platform);
  await deployAttackers(platform, program);
  const address = server.address();
  const aims: Aims = {
    scratch,
    file,
    folder,
    dataDirectory: platform.dataDirectory,
    platformPid: platform.pid,
    platformPort: Number(new URL(platform.url).port),
    port: typeof address === "object" && address !== null ? address.port : 0,
    neighbourPid,
    bystander,
    socketPath,
    abstractName,
    setUserIdProgram: setUserIdProgram(),
    cgroupFiles: cgroupFiles(),
  };
  const stack = opened.move();
  return {
    platform,
    aims,
    try: (attempt) => attackOnce(platform, attempt, scratch),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Compiles attack.c; answers the program's path. */
export function compileAttack(folder: string): string {
  const program = join(folder, "attack");
  execFileSync("gcc", ["-O1", "-static", "-o", program, join(attackerFolder, "attack.c")]);
  return program;
}

/** The functions `attacker` (JavaScript and system calls) and `attacker-python`. */
export async function deployAttackers(platform: RunningPlatform, program: string): Promise<void> {
  const archive = zip([
    { path: "index.cjs", content: readFileSync(join(attackerFolder, "index.cjs")) },
    { path: "attack", content: readFileSync(program), mode: 0o100755 },
  ]);
  const uploaded = await upload(platform, archive);
  assert.equal(uploaded.status, 201, uploaded.text);
  const { digest } = JSON.parse(uploaded.text) as { digest: string };
  const deployed = await manage(platform, "PUT", "/v1/namespaces/default/functions/attacker", {
    code: digest,
    handlerModel: "lambda",
    timeoutMs: 60_000,
  });
  assert.ok(deployed.status < 300, deployed.text);
  const source = readFileSync(join(attackerFolder, "app.py"), "utf8");
  const spec = { runtime: "python3", handler: "app.handler", memoryBytesMax: 1024 * 1024 * 1024, timeoutMs: 60_000 };
  await deploy(platform, "attacker-python", { "app.py": source }, { spec });
}

/** Answers the number that the machine knows its process by. */
async function deployNeighbour(platform: RunningPlatform): Promise<number> {
  const put = await manage(platform, "PUT", "/v1/namespaces/default/secrets/WORD", { value: secretOf("neighbour") });
  assert.ok(put.status < 300, put.text);
  await deploy(
    platform,
    "neighbour",
    { "index.cjs": NEIGHBOUR.replace("CODE", secretOf("code")) },
    {
      spec: {
        handlerModel: "lambda",
        secrets: ["WORD"],
        environment: { VARIABLE: secretOf("variable") },
        idleTimeoutMs: 600_000,
      },
    },
  );
  const answer = await invoke(platform, "neighbour", {});
  const { pid, namespace } = answer as { readonly pid: number; readonly namespace: string };
  if (namespace === readlinkSync("/proc/self/ns/pid")) return pid;
  return await eventually("the neighbour's process", () => {
    for (const name of readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name))) {
      try {
        if (readlinkSync(`/proc/${name}/ns/pid`) !== namespace) continue;
        const [, inside] = /^NSpid:.*\t(\d+)$/m.exec(readFileSync(`/proc/${name}/status`, "utf8")) ?? [];
        if (Number(inside) === pid) return Number(name);
      } catch {
        // It has just ended, or is not ours.
      }
    }
    return null;
  });
}

async function attackOnce(platform: RunningPlatform, attempt: Attempt, scratch: string): Promise<Result> {
  const { language, attack, args } = attempt;
  const name = language === "python" ? "attacker-python" : "attacker";
  return (await invoke(platform, name, { attack, args, scratch })) as Result;
}

/** Calls a function with an event. @throws AssertionError with the platform's answer */
export async function invoke(platform: RunningPlatform, name: string, event: unknown): Promise<unknown> {
  const answer = await manage(platform, "POST", `/v1/namespaces/default/functions/${name}/invoke`, event);
  assert.equal(answer.status, 200, `${JSON.stringify(event)}: ${answer.text}`);
  return JSON.parse(answer.text);
}

function setUserIdProgram(): string {
  const programs = ["/usr/bin/su", "/bin/su", "/usr/bin/passwd", "/usr/bin/newgrp"];
  const found = programs.find((path) => {
    const status = statSync(path, { throwIfNoEntry: false });
    return status !== undefined && (status.mode & 0o4000) !== 0;
  });
  assert.ok(found !== undefined, "the machine has no set-user-id program");
  return found;
}

/** Of either version of cgroups. */
function cgroupFiles(): string[] {
  const root = "/sys/fs/cgroup";
  const folders = [root, ...readdirSync(root).map((name) => join(root, name))];
  return folders.flatMap((folder) => [join(folder, "release_agent"), join(folder, "cgroup.procs")]);
}

async function firstLine(child: ChildProcess): Promise<string> {
  assert.ok(child.stdout !== null);
  for await (const line of createInterface(child.stdout)) {
    child.stdout.resume();
    return line;
  }
  throw new Error("the bystander said nothing");
}

async function endedOf(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}

async function closed(server: Server): Promise<void> {
  server.close();
  await once(server, "close");
}
