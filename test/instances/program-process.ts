import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import type { ProtocolProcess } from "../../src/protocols/conformance.ts";
import type { Program, Protocol, Specialisation } from "../../src/protocols/protocol.ts";
import { nodeMount, testLimits } from "../../src/sandbox/conformance.ts";
import { openProcessDriver } from "../../src/sandbox/process/driver.ts";
import type { SandboxDriver } from "../../src/sandbox/sandbox.ts";
import { type Files, writeFiles } from "./program.ts";

/** Starts programs of Node in sandboxes of their own, for the conformance suite; they are launched as the engine would. */
export function programProcesses(protocol: Protocol, files: Files): () => Promise<ProtocolProcess> {
  let directory: string | null = null;
  let opening: Promise<SandboxDriver> | null = null;
  after(async () => {
    await (await opening)?.close();
    if (directory !== null) await rm(directory, { recursive: true, force: true });
  });
  return async () => {
    directory ??= await mkdtemp(join(tmpdir(), "koine-program-"));
    const code = join(directory, "code");
    await writeFiles(code, files);
    opening ??= openProcessDriver({
      directory: join(directory, "sandboxes"),
      tag: `conformance-${process.pid}`,
      privateMounts: false,
      logger: { log: () => {} },
    });
    return await startProgramProcess(await opening, protocol, code);
  };
}

let started = 0;

async function startProgramProcess(driver: SandboxDriver, protocol: Protocol, code: string): Promise<ProtocolProcess> {
  const { program: needs } = protocol;
  if (needs === undefined) throw new Error(`protocol '${protocol.name}' launches no programs`);
  const program: Program = {
    command: [nodeMount.target, "/code/main.mjs"],
    port: needs.port,
    readyPath: null,
    codeFolder: code,
  };
  const specialisation: Specialisation = {
    codePath: "/code",
    handler: "main",
    handlerModel: "auto",
    environment: {},
    function: { namespace: "default", package: "", name: "program", version: 1 },
    memoryBytesMax: 256 * 1024 * 1024,
    timeoutMs: 30_000,
    instanceConcurrency: 10,
    adapters: [],
    program,
  };
  const sandbox = await driver.create(
    {
      id: `program-${process.pid}-${++started}`,
      command: program.command,
      environment: { ...needs.environment(specialisation) },
      mounts: [nodeMount, { source: code, target: "/code" }],
      limits: testLimits,
      network: "none",
      cwd: "/code",
      held: needs.ability === "listen",
    },
    AbortSignal.timeout(20_000),
  );
  sandbox.stdout.resume();
  sandbox.stderr.on("data", (chunk: Buffer) => process.stderr.write(chunk));
  return {
    reach: sandbox,
    specialisation,
    missing: specialisation,
    exited: sandbox.ended,
    async stop() {
      await sandbox.stop(0);
    },
  };
}
