import { AnswerHead, Call, CallTable, HeadReader } from "./call.mjs";
import { Connection, LAST, Outbox, frameType } from "./connection.mjs";
import { loadHandler } from "./load.mjs";
import { openCodeCache } from "./code-cache.mjs";
import { captureOutput } from "./output.mjs";
import { ReportedError, describeThrown, invalidResponse } from "./thrown.mjs";

// An `import` of Node's own modules reads all their exports, which loads half of Node: 10 ms of the boot.
const { AsyncLocalStorage } = process.getBuiltinModule("node:async_hooks");
const { syncBuiltinESMExports } = process.getBuiltinModule("node:module");
const { inspect } = process.getBuiltinModule("node:util");
const { dirname } = process.getBuiltinModule("node:path");
const { fileURLToPath } = process.getBuiltinModule("node:url");

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
/** The first compiles, the second finds what only a compiled function does. */
const REHEARSAL_ROUNDS = 2;
/**
 * What most handlers import: the first import of each reads all its exports and so loads what they need, 4 ms for `fs` alone. Then what
 * clients of other services import, which takes longer, where there is time for it.
 */
const LOADED_AHEAD = ["fs", "path", "url", "util", "events", "os"];
const LOADED_LATER = ["stream", "buffer", "timers/promises", "crypto", "http", "https"];
/**
 * Up to this size of an instance its heap grows in small steps, where V8 would rather let garbage pile up than collect it. Said a while after
 * loading: under another flag V8 compiles Node's own modules anew instead of taking what comes with Node, a quarter of a boot.
 */
const CAREFUL_MEMORY_BYTES_MAX = 512 * 1024 * 1024;
const CAREFUL_AFTER_MS = 1_000;

/** @type {import("node:async_hooks").AsyncLocalStorage<Call>} */
const current = new AsyncLocalStorage();
const calls = new CallTable();
const heads = new HeadReader();
const answerHead = new AnswerHead();
/** @type {Map<string, Promise<Adapter>>} */
const adapters = new Map();
/** @type {((call: Call) => Promise<void>) | null} */
let handle = null;
let specialising = false;
/** @type {Promise<void> | null} */
let rehearsal = null;
let shuttingDown = false;
/** Came together with the specialisation and run once it is done. @type {{ call: Call, cameMs: number }[]} */
let early = [];

const connection = new Connection(CHANNEL_FD, onFrame, () => {
  // The engine is gone, and with it everybody who could want something from this process.
  if (!shuttingDown) exit(0);
});
const later = setTimeout;
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
const { node: version } = process.versions;
connection.json(frameType.ready, 0, { protocol: 1, language: "nodejs", version, invokesEarly: true });
/** Each PING that comes before the specialisation says that there is time for the next part. @type {(() => Promise<void>)[]} */
const rehearsalParts = [() => rehearse(rehearsed), () => loadAhead(LOADED_LATER)];

/** Answers when the part of the rehearsal that it begins has ended, so that the engine sees how many rehearse. @param {Buffer} payload */
async function onPing(payload) {
  const part = specialising ? undefined : rehearsalParts.shift();
  if (part !== undefined) {
    rehearsal = (rehearsal ?? Promise.resolve()).then(part).catch(onUncaught);
    await rehearsal;
  }
  connection.frame(frameType.pong, 0, 0, payload);
}

/**
 * @param {number} type
 * @param {number} stream
 * @param {number} flags
 * @param {Buffer} payload
 */
function onFrame(type, stream, flags, payload) {
  switch (type) {
    case frameType.invoke:
      return onInvoke(connection, { stream, complete: (flags & LAST) !== 0, payload });
    case frameType.data:
      return calls.get(stream)?.receive(payload, (flags & LAST) !== 0);
    case frameType.credit:
      return calls.get(stream)?.credit(payload.readUInt32LE(0));
    case frameType.cancel:
      return onCancel(calls.get(stream));
    case frameType.ping:
      // What it was read from may hold other frames when a rehearsal has ended.
      return void onPing(Buffer.from(payload));
    case frameType.specialise:
      specialise(payload).catch(onUncaught);
      return undefined;
    case frameType.shutdown:
      return shutdown();
    default:
      throw new Error(`the engine sent a frame of type ${type}`);
  }
}

/**
 * @param {Outbox} outbox
 * @param {{ stream: number, complete: boolean, payload: Buffer }} frame
 */
function onInvoke(outbox, frame) {
  if (handle !== null) void runCall(beginCall(outbox, frame), handle);
  else if (specialising) early.push({ call: beginCall(outbox, frame), cameMs: performance.now() });
  else throw new Error("the engine sent an invocation before the specialisation");
}

/**
 * @param {Outbox} outbox
 * @param {{ stream: number, complete: boolean, payload: Buffer }} frame
 */
function beginCall(outbox, { stream, complete, payload }) {
  const bodyAt = 4 + payload.readUInt32LE(0);
  const head = heads.read(payload.toString("utf8", 4, bodyAt));
  const body = payload.subarray(bodyAt);
  const call = new Call(outbox, stream, head, { body, complete, answerHead, onSettled: forget });
  calls.set(stream, call);
  return call;
}

/**
 * @param {Call} call
 * @param {(call: Call) => Promise<void>} handler
 */
function runCall(call, handler) {
  return current.run(call, serve, handler, call);
}

/** Loading takes nothing of a call's time; what was cancelled meanwhile is not begun. @param {(call: Call) => Promise<void>} handler */
function runEarly(handler) {
  for (const { call, cameMs } of early) {
    call.head.deadlineMs += Math.round(performance.now() - cameMs);
    void (call.cancelled ? call.finish() : runCall(call, handler));
  }
  early = [];
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
    const finished = call.finish();
    if (finished !== undefined) await finished;
  } catch (thrown) {
    call.fail(thrown);
  }
  // The last answer waits for no others to be written with.
  if (calls.size === 0) connection.write();
}

/** @param {Buffer} payload */
async function specialise(payload) {
  if (specialising) throw new Error("the engine specialised this process twice");
  specialising = true;
  const beganMs = performance.now();
  // It leaves off at its next step, and takes back what it put in place.
  if (rehearsal !== null) await rehearsal;
  try {
    handle = await load(connection, payload, { adapterAt, beganMs });
    connection.write();
    runEarly(handle);
  } catch (thrown) {
    connection.json(frameType.loadFailed, 0, describeThrown(thrown, "handler-load-failed"));
    exit(1);
  }
}

/**
 * @param {Outbox} outbox
 * @param {Buffer} payload of a SPECIALISE
 * @param {{ adapterAt: (path: string) => Promise<Adapter>, beganMs: number }} options
 */
async function load(outbox, payload, { adapterAt, beganMs }) {
  const specialisation = /** @type {Specialisation} */ (JSON.parse(payload.toString()));
  setEnvironment(specialisation.environment);
  process.chdir(specialisation.codePath);
  if (specialisation.environment["KOINE_API"] !== undefined) offerClient(specialisation.adapters);
  const cache = specialisation.codeCache === undefined ? null : openCodeCache(specialisation.codeCache.path);
  const loaded = await loadHandler(specialisation, adapterAt, invalidResponse);
  for (const file of cache?.take() ?? []) outbox.frame(frameType.codeCache, 0, 0, file);
  const loadMs = performance.now() - beganMs;
  if (specialisation.memoryBytesMax > 0 && specialisation.memoryBytesMax <= CAREFUL_MEMORY_BYTES_MAX) {
    later(growCarefully, CAREFUL_AFTER_MS).unref();
  }
  outbox.json(frameType.specialised, 0, { handlerModel: loaded.handlerModel, loadMs });
  return loaded.handle;
}

/**
 * Lets code that may ask the platform import "koine", unless its package has one of its own.
 *
 * @param {Specialisation["adapters"]} adapters the client stands beside those of the platform's own models
 */
function offerClient(adapters) {
  const beside = adapters.find(({ dialect }) => dialect === "native")?.path;
  if (beside === undefined) return;
  const { pathToFileURL } = process.getBuiltinModule("node:url");
  const { href } = new URL("client.mjs", pathToFileURL(beside));
  process.getBuiltinModule("node:module").registerHooks({
    resolve(specifier, context, next) {
      if (specifier !== "koine") return next(specifier, context);
      try {
        return next(specifier, context);
      } catch {
        return { url: href, format: "module", shortCircuit: true };
      }
    },
  });
}

function growCarefully() {
  process.getBuiltinModule("node:v8").setFlagsFromString("--heap-growing-percent=50");
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

/**
 * Does what a specialisation and a call do, so that the real ones find it compiled and loaded.
 *
 * @param {string[]} paths of adapters
 */
async function rehearse(paths) {
  const nowhere = new Outbox();
  const specialisation = rehearsalOf(dirname(fileURLToPath(import.meta.url)));
  const invocation = rehearsedInvocation();
  for (let round = 0; round < REHEARSAL_ROUNDS; round++) {
    if (specialising) return;
    // ES modules and CommonJS have a loader each.
    for (const handler of ["rehearsal-module.handler", "rehearsal.handler"]) {
      const payload = Buffer.from(JSON.stringify({ ...specialisation, handler }));
      const rehearsedHandle = await load(nowhere, payload, { adapterAt: rehearsedAdapter, beganMs: performance.now() });
      await runCall(beginCall(nowhere, { stream: 1, complete: true, payload: invocation }), rehearsedHandle);
      process.argv.splice(1);
    }
    process.chdir("/");
    const instance = { ...specialisation, exportName: null, invalidResponse };
    for (const path of paths) {
      if (specialising) return;
      const adapter = await adapterAt(path);
      await adapter.rehearse?.(instance, () => rehearsedCall(nowhere, invocation));
    }
    if (round === 0) await loadAhead(LOADED_AHEAD);
  }
}

/** @param {readonly string[]} names of modules of Node's own */
async function loadAhead(names) {
  for (const name of names) {
    if (specialising) return;
    await import(`node:${name}`);
  }
}

/** @param {string} codePath @returns {Specialisation} */
function rehearsalOf(codePath) {
  return {
    codePath,
    handler: "",
    handlerModel: "auto",
    environment: {},
    function: { namespace: "", package: "", name: "rehearsal", version: 0 },
    memoryBytesMax: 0,
    timeoutMs: 1_000,
    instanceConcurrency: 1,
    adapters: [{ dialect: "", model: "rehearsal", path: "" }],
  };
}

/** @returns {Promise<Adapter>} */
async function rehearsedAdapter() {
  return {
    model: "rehearsal",
    select: (exports) => exports["handler"],
    adapt: (handler) => async (call) => {
      await call.readAll();
      await handler();
      call.respond(200, ["content-type", "text/plain"]);
      call.end("ok");
    },
  };
}

/** The payload of an INVOKE. */
function rehearsedInvocation() {
  const head = {
    id: "",
    attempt: 1,
    deadlineMs: Date.now() + 60_000,
    kind: "http",
    method: "POST",
    url: "/a?b=c",
    headers: ["Host", "localhost", "Content-Type", "application/json"],
    basePath: "",
    origin: "http://localhost",
    remoteAddress: "127.0.0.1",
  };
  const json = Buffer.from(JSON.stringify(head));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return Buffer.concat([length, json, Buffer.from("{}")]);
}

/** @param {Outbox} outbox @param {Buffer} payload */
function rehearsedCall(outbox, payload) {
  const bodyAt = 4 + payload.readUInt32LE(0);
  const head = JSON.parse(payload.toString("utf8", 4, bodyAt));
  const body = payload.subarray(bodyAt);
  return new Call(outbox, 1, head, { body, complete: true, answerHead, onSettled: () => {} });
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
