import { AsyncLocalStorage } from "node:async_hooks";
import { syncBuiltinESMExports } from "node:module";
import { inspect } from "node:util";
import { setFlagsFromString } from "node:v8";
import { Call } from "./call.mjs";
import { Connection, LAST, Outbox, frameType } from "./connection.mjs";
import { loadHandler } from "./load.mjs";
import { captureOutput } from "./output.mjs";
import { ReportedError, describeThrown, invalidResponse } from "./thrown.mjs";

/**
 * What runs in a sandbox with Node: boots, rehearses with the adapters named as arguments, waits to become an instance of one
 * version, then serves its invocations until the engine ends it. Speaks docs/frames.md on descriptor 3.
 *
 * @typedef {import("./load.mjs").Adapter} Adapter
 * @typedef {import("./load.mjs").Specialisation} Specialisation
 */
const CHANNEL_FD = 3;
/** Time for exit hooks when the engine says that no more will come, in milliseconds. */
const SHUTDOWN_MS_MAX = 1_500;
const REHEARSAL_DELAY_MS = 10;
/** Up to this size of an instance its heap grows in small steps: V8 would rather let garbage pile up than collect it. */
const CAREFUL_MEMORY_BYTES_MAX = 512 * 1024 * 1024;

/** @type {AsyncLocalStorage<Call>} */
const current = new AsyncLocalStorage();
/** @type {Map<number, Call>} */
const calls = new Map();
/** @type {Map<string, Promise<Adapter>>} */
const adapters = new Map();
/** @type {((call: Call) => Promise<void>) | null} */
let handle = null;
let specialising = false;
let shuttingDown = false;

const connection = new Connection(CHANNEL_FD, onFrame, () => {
  // The engine is gone, and with it everybody who could want something from this process.
  if (!shuttingDown) exit(0);
});
const exit = process.exit.bind(process);
const reallyExit = /** @type {{ reallyExit: (code?: number) => never }} */ (/** @type {unknown} */ (process));
const endProcess = reallyExit.reallyExit.bind(process);
// After the exit listeners of user code, whose output counts too.
reallyExit.reallyExit = (code) => {
  connection.writeFinally();
  return endProcess(code);
};
process.on("exit", () => connection.writeFinally());
process.on("uncaughtException", onUncaught);
process.on("unhandledRejection", onUnhandled);
connection.guard();
syncBuiltinESMExports();
captureOutput((source, bytes) => connection.log(current.getStore()?.logStream ?? 0, source, bytes));

const rehearsed = process.argv.splice(2);
connection.json(frameType.ready, 0, { protocol: 1, language: "nodejs", version: process.versions.node });
// A process that is wanted at once is specialised at once; a spare has the time to rehearse.
setTimeout(() => {
  if (!specialising) rehearse(rehearsed).catch(onUncaught);
}, REHEARSAL_DELAY_MS);

/**
 * @param {number} type
 * @param {number} stream
 * @param {number} flags
 * @param {Buffer} payload
 */
function onFrame(type, stream, flags, payload) {
  switch (type) {
    case frameType.invoke:
      return onInvoke(stream, (flags & LAST) !== 0, payload);
    case frameType.data:
      return calls.get(stream)?.receive(payload, (flags & LAST) !== 0);
    case frameType.credit:
      return calls.get(stream)?.credit(payload.readUInt32LE(0));
    case frameType.cancel:
      return onCancel(calls.get(stream));
    case frameType.ping:
      return connection.frame(frameType.pong, 0, 0, payload);
    case frameType.specialise:
      specialise(JSON.parse(payload.toString())).catch(onUncaught);
      return undefined;
    case frameType.shutdown:
      return shutdown();
    default:
      throw new Error(`the engine sent a frame of type ${type}`);
  }
}

/**
 * @param {number} stream
 * @param {boolean} complete
 * @param {Buffer} payload
 */
function onInvoke(stream, complete, payload) {
  if (handle === null) throw new Error("the engine sent an invocation before the specialisation was done");
  const bodyAt = 4 + payload.readUInt32LE(0);
  const head = JSON.parse(payload.toString("utf8", 4, bodyAt));
  const call = new Call(connection, stream, head, { body: payload.subarray(bodyAt), complete, onSettled: forget });
  calls.set(stream, call);
  void current.run(call, serve, handle, call);
}

/** Listeners of the call's signal run at once: what they write is the call's. @param {Call | undefined} call */
function onCancel(call) {
  if (call !== undefined) current.run(call, () => call.cancel());
}

/** @param {number} stream */
function forget(stream) {
  calls.delete(stream);
}

/**
 * @param {(call: Call) => Promise<void>} handler
 * @param {Call} call
 */
async function serve(handler, call) {
  try {
    await handler(call);
    await call.finish();
  } catch (thrown) {
    call.fail(thrown);
  }
}

/** @param {Specialisation} specialisation */
async function specialise(specialisation) {
  if (specialising) throw new Error("the engine specialised this process twice");
  specialising = true;
  const beganMs = performance.now();
  try {
    setEnvironment(specialisation.environment);
    process.chdir(specialisation.codePath);
    if (specialisation.memoryBytesMax <= CAREFUL_MEMORY_BYTES_MAX) setFlagsFromString("--heap-growing-percent=50");
    const loaded = await loadHandler(specialisation, adapterAt, invalidResponse);
    handle = loaded.handle;
    const loadMs = performance.now() - beganMs;
    connection.json(frameType.specialised, 0, { handlerModel: loaded.handlerModel, loadMs });
  } catch (thrown) {
    connection.json(frameType.loadFailed, 0, describeThrown(thrown, "handler-load-failed"));
    exit(1);
  }
}

/** The function sees its own variables and what every program needs, nothing of the platform's. @param {Record<string, string>} own */
function setEnvironment(own) {
  const path = process.env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin";
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, { PATH: path, HOME: "/tmp", TMPDIR: "/tmp", ...own });
}

/** @param {string} path @returns {Promise<Adapter>} */
function adapterAt(path) {
  let adapter = adapters.get(path);
  if (adapter === undefined) {
    adapter = import(path);
    adapters.set(path, adapter);
  }
  return adapter;
}

/** Does once what every call does, so that the first real one finds it compiled and loaded. @param {string[]} paths */
async function rehearse(paths) {
  const nowhere = new Outbox();
  const instance = {
    function: { namespace: "", package: "", name: "rehearsal", version: 0 },
    handler: "",
    exportName: null,
    codePath: "/",
    memoryBytesMax: 0,
    timeoutMs: 1_000,
    invalidResponse,
  };
  const head = {
    id: "",
    attempt: 1,
    deadlineMs: Date.now() + 60_000,
    kind: /** @type {const} */ ("http"),
    method: "POST",
    url: "/a?b=c",
    headers: ["Host", "localhost", "Content-Type", "application/json"],
    basePath: "",
    origin: "http://localhost",
    remoteAddress: "127.0.0.1",
  };
  const makeCall = () => {
    return new Call(nowhere, 1, head, { body: Buffer.from("{}"), complete: true, onSettled: () => {} });
  };
  // CommonJS has a loader of its own.
  await import("./rehearsal.cjs");
  for (const path of paths) {
    const adapter = await adapterAt(path);
    await adapter.rehearse?.(instance, makeCall);
  }
}

/**
 * @param {unknown} thrown
 * @param {NodeJS.UncaughtExceptionOrigin} [origin]
 */
function onUncaught(thrown, origin = "uncaughtException") {
  if (process.listenerCount("uncaughtException") > 1) return;
  blame(thrown, origin === "uncaughtException" ? "Uncaught exception" : "Unhandled rejection");
}

/**
 * @param {unknown} reason
 * @param {Promise<unknown>} promise
 */
function onUnhandled(reason, promise) {
  if (process.listenerCount("unhandledRejection") > 1) return;
  if (process.listenerCount("uncaughtException") > 1) {
    // Code that listens for uncaught exceptions only gets rejections too: that is what Node does.
    const error =
      reason instanceof Error ? reason : new Error(`Unhandled rejection: ${inspect(reason)}`, { cause: promise });
    process.emit("uncaughtException", error, "unhandledRejection");
    return;
  }
  blame(reason, "Unhandled rejection");
}

/**
 * Fails the one call that an error belongs to; an error that belongs to none ends the process, as it does in Node.
 *
 * @param {unknown} thrown
 * @param {string} what
 */
function blame(thrown, what) {
  const call = current.getStore();
  const shown = thrown instanceof ReportedError ? thrown.message : inspect(thrown);
  if (call !== undefined && !call.settled) {
    call.fail(thrown);
    return;
  }
  const where = call === undefined ? "" : `, left behind by invocation ${call.head.id}`;
  connection.log(0, 2, Buffer.from(`${what}${where}: ${shown}\n`));
  if (call === undefined) exit(1);
}

function shutdown() {
  if (shuttingDown) return;
  shuttingDown = true;
  const hooked = process.listenerCount("SIGTERM") + process.listenerCount("beforeExit") > 0;
  if (!hooked) exit(0);
  setTimeout(() => exit(0), SHUTDOWN_MS_MAX);
  if (!process.emit("SIGTERM", "SIGTERM")) process.emit("beforeExit", 0);
}
