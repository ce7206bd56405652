import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, test } from "node:test";
import { limits } from "../../src/core/limits.ts";
import {
  activationOf,
  call,
  commandsWith,
  deploy,
  errorOf,
  eventually,
  idOf,
  logsOf,
  manage,
  send,
  tryDeploy,
} from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

let platform: RunningPlatform;

before(async () => {
  platform = await startPlatform();
  await deploy(platform, "neighbour", `export default () => new Response("well");`);
});

after(async () => {
  await platform?.stop();
});

/** What others see of a fault: nothing. */
async function neighbourIsWell(): Promise<void> {
  const answer = await call(platform, "neighbour");
  assert.deepEqual([answer.status, answer.text], [200, "well"]);
}

const PYTHON = { runtime: "python3", handler: "app.handler" };
const BROKEN = "export default function handler() {\n  const a = 1;\n  return { a: ;\n}\n";

test("a syntax error is shown with its file and line when deploying, and what was live stays live", async () => {
  await deploy(platform, "syntax", `export default () => new Response("first");`);
  const refused = await tryDeploy(platform, "syntax", BROKEN);
  assert.equal(refused.status, 502);
  assert.match(errorOf(refused, "handler-syntax-error").message, /index\.mjs:3.*';'/);
  assert.equal((await call(platform, "syntax")).text, "first");
  const python = await tryDeploy(
    platform,
    "syntax-python",
    { "app.py": "def handler(event, context):\n  return (\n" },
    { spec: PYTHON },
  );
  assert.match(errorOf(python, "handler-syntax-error").message, /app\.py, line 2/);
});

test("a syntax error that was deployed without a check is shown by the call", async () => {
  await deploy(platform, "unchecked", BROKEN, { spec: { check: false } });
  const answer = await call(platform, "unchecked");
  assert.equal(answer.status, 502);
  assert.match(errorOf(answer, "handler-syntax-error").message, /index\.mjs:3/);
  const activation = await activationOf(platform, idOf(answer));
  assert.deepEqual([activation.state, activation.error?.code], ["failed", "handler-syntax-error"]);
  await deploy(platform, "unchecked", `export default () => new Response("mended");`);
  assert.equal((await call(platform, "unchecked")).text, "mended");
});

test("a handler that is missing is answered with what the module exports", async () => {
  const none = await tryDeploy(platform, "missing", "export const alpha = 1; export function beta() {}");
  assert.match(errorOf(none, "handler-not-found").message, /exports alpha, beta/);
  const other = await tryDeploy(platform, "missing", "export function beta() {}", { spec: { handler: "index.gamma" } });
  assert.match(errorOf(other, "handler-not-found").message, /beta/);
  const file = await tryDeploy(platform, "missing", "export function beta() {}", { spec: { handler: "nothere.beta" } });
  assert.match(errorOf(file, "handler-not-found").message, /nothere/);
  assert.equal((await call(platform, "missing")).status, 404, "nothing remains of a deploy that failed");
});

test("a module that throws, exits or never finishes loading is refused with the reason", async () => {
  const never = `did not finish loading within ${limits.loadTimeoutMs} ms`;
  const sources = {
    "throw new TypeError('no database')": ["handler-load-failed", "TypeError: no database"],
    "throw null": ["handler-load-failed", "null"],
    "process.exit(3)": ["handler-load-failed", "exited with code 3"],
    "process.kill(process.pid, 'SIGKILL')": ["handler-load-failed", "SIGKILL"],
    "await new Promise(() => {})": ["handler-load-timeout", never],
    "setInterval(() => {}, 1000); await new Promise(() => {})": ["handler-load-timeout", never],
    "for (;;);": ["handler-load-timeout", never],
  } as const;
  const refusals = Object.entries(sources).map(async ([source, [code, message]], index) => {
    const answer = await tryDeploy(platform, `load-${index}`, `${source};\nexport default () => new Response("");`);
    const error = errorOf(answer, code);
    assert.ok(error.message.includes(message), `${source}: ${error.message}`);
    assert.equal(error.fault, "function");
  });
  await Promise.all([...refusals, neighbourIsWell()]);
});

test("whatever a handler throws is told with its type, and its instance goes on", async () => {
  await deploy(
    platform,
    "throws",
    `let calls = 0;
     const thrown = {
       error: () => { throw new RangeError("too far"); }, text: () => { throw "a text"; }, nothing: () => { throw null; },
       symbol: () => { throw Symbol("s"); }, object: () => { throw { a: 1 }; },
       trap: () => { throw new Proxy({}, { get() { throw new Error("trap"); } }); },
       later: () => new Promise(() => setTimeout(() => { throw new Error("later"); }, 5)),
       unhandled: () => { void Promise.reject(new Error("unhandled")); return new Promise(() => {}); },
     };
     export default (request) => { calls++; return thrown[new URL(request.url).pathname.split("/").at(-1)]?.() ?? new Response(String(calls)); };`,
  );
  const expected = {
    error: ["RangeError", "too far"],
    text: ["string", "a text"],
    nothing: ["null", "null"],
    symbol: ["symbol", "Symbol(s)"],
    object: ["Object", "{ a: 1 }"],
    trap: ["object", "something that cannot be printed was thrown"],
    later: ["Error", "later"],
    unhandled: ["Error", "unhandled"],
  };
  for (const [path, [type, message]] of Object.entries(expected)) {
    const answer = await call(platform, `throws/${path}`);
    assert.equal(answer.status, 502, path);
    const { cause } = errorOf(answer, "handler-failed");
    assert.deepEqual([cause?.type, cause?.message], [type, message]);
  }
  assert.equal((await call(platform, "throws/none")).text, String(Object.keys(expected).length + 1));
});

test("a result that JSON cannot hold is refused with the reason; a huge one arrives or ends only its own call", async () => {
  await deploy(
    platform,
    "results",
    {
      "index.cjs": `exports.handler = async ({ kind, length }) => {
        const circle = {}; circle.self = circle;
        return { circle, bigint: 5n, huge: "x".repeat(length ?? 0), getter: { get a() { throw new Error("boom"); } }, nothing: undefined }[kind];
      };`,
    },
    { spec: { memoryBytesMax: 128 << 20 } },
  );
  const invoke = (event: unknown) => manage(platform, "POST", "/v1/namespaces/default/functions/results/invoke", event);
  for (const [kind, reason] of [
    ["circle", /circular/],
    ["bigint", /BigInt/],
    ["getter", /boom/],
  ] as const) {
    const answer = await invoke({ kind });
    assert.equal(answer.status, 502);
    assert.match(errorOf(answer, "invalid-response").message, reason);
  }
  assert.equal((await invoke({ kind: "nothing" })).text, "null");
  const large = await invoke({ kind: "huge", length: 8_000_000 });
  assert.deepEqual([large.status, large.text.length], [200, 8_000_002]);
  const tooLarge = await invoke({ kind: "huge", length: 300_000_000 });
  assert.equal(tooLarge.status, 502);
  errorOf(tooLarge, "out-of-memory");
  assert.equal((await invoke({ kind: "nothing" })).status, 200);
});

test("an answer that HTTP cannot carry is refused with the reason", async () => {
  await deploy(platform, "lambda-answers", {
    "index.cjs": `exports.handler = async ({ queryStringParameters: { kind } }) => ({
        status: { statusCode: 9000 }, text: { statusCode: "abc" }, header: { statusCode: 200, headers: { "a b": "c" } },
        split: { statusCode: 200, headers: { a: "x\\r\\nSet-Cookie: stolen=1" } } })[kind];`,
  });
  for (const kind of ["status", "text", "header", "split"]) {
    const answer = await call(platform, `lambda-answers?kind=${kind}`);
    assert.equal(answer.status, 502, `${kind}: ${answer.text}`);
    assert.equal(answer.headers["set-cookie"], undefined);
    errorOf(answer, "invalid-response");
  }
});

test("a process that ends during a call fails that call with the reason, and the next one gets a new instance", async () => {
  await deploy(
    platform,
    "ends",
    `const ways = { exit: () => process.exit(7), abort: () => process.abort(), kill: () => process.kill(process.pid, "SIGKILL"),
       late: () => new Promise(() => setTimeout(() => process.exit(9), 10)) };
     export default (request) => ways[new URL(request.url).pathname.split("/").at(-1)]?.() ?? new Response("alive");`,
  );
  const expected = { exit: "exit code 7", abort: "SIGABRT", kill: "SIGKILL", late: "exit code 9" };
  for (const [path, reason] of Object.entries(expected)) {
    const answer = await call(platform, `ends/${path}`);
    assert.equal(answer.status, 502);
    const error = errorOf(answer, "function-exited");
    assert.ok(error.message.includes(reason), error.message);
    assert.equal((await call(platform, "ends/")).text, "alive");
  }
});

test("a handler that spins for ever is stopped at its timeout, and its neighbours do not notice", async () => {
  await deploy(platform, "spins", "export default () => { for (;;); };", { spec: { timeoutMs: 1_000 } });
  await deploy(
    platform,
    "spins-python",
    { "app.py": "def handler(event, context):\n  while True: pass\n" },
    { spec: { ...PYTHON, timeoutMs: 1_000 } },
  );
  const spinning = [call(platform, "spins"), call(platform, "spins"), call(platform, "spins-python")];
  await neighbourIsWell();
  for (const answer of await Promise.all(spinning)) {
    assert.equal(answer.status, 504);
    assert.match(errorOf(answer, "function-timed-out").message, /1000 ms/);
  }
  const { items } = JSON.parse((await send(platform, "/v1/namespaces/default/activations?function=spins")).text) as {
    items: { state: string }[];
  };
  assert.deepEqual(
    items.map(({ state }) => state),
    ["timedOut", "timedOut"],
  );
});

test("a handler that eats memory ends only the calls of its own instance, and is told why", async () => {
  await deploy(
    platform,
    "eats",
    `export default async (request) => {
       const kind = new URL(request.url).pathname.split("/").at(-1);
       if (kind === "wait") { await new Promise((resolve) => setTimeout(resolve, 1500)); return new Response("waited"); }
       const kept = [];
       if (kind === "buffers") for (;;) kept.push(Buffer.alloc(8e6, 1));
       if (kind === "objects") for (;;) kept.push({ a: [1, 2, 3], b: String(kept.length) });
       return new Response("full");
     };`,
    { spec: { memoryBytesMax: 128 << 20 } },
  );
  const waiting = call(platform, "eats/wait");
  for (const kind of ["buffers", "objects"]) {
    const answer = await call(platform, `eats/${kind}`);
    assert.equal(answer.status, 502);
    assert.match(errorOf(answer, "out-of-memory").message, /128 MB/);
  }
  assert.equal((await waiting).text, "waited");
  assert.equal((await call(platform, "eats/")).text, "full");
  await neighbourIsWell();
});

test("a fork bomb stays within its sandbox and ends with its call", async () => {
  const marker = `31${process.pid}7`;
  await deploy(
    platform,
    "forks",
    `import { spawn } from "node:child_process";
     export default async (request) => {
       const kind = new URL(request.url).pathname.split("/").at(-1);
       if (kind === "bomb") spawn("/bin/sh", ["-c", "b() { sleep ${marker} & b | b & }; b; wait"], { stdio: "ignore", detached: true });
       if (kind === "bomb") await new Promise(() => {});
       for (let count = 0; ; count++) {
         const child = spawn("/bin/sleep", ["${marker}"], { stdio: "ignore" });
         await new Promise((resolve, reject) => child.on("spawn", resolve).on("error", reject)).catch((error) => {
           if (kind === "exit") process.exit(1);
           throw error;
         });
       }
     };`,
    { spec: { timeoutMs: 4_000 } },
  );
  const bomb = call(platform, "forks/bomb");
  await neighbourIsWell();
  const told = await call(platform, "forks/told");
  assert.equal(told.status, 502);
  assert.match(errorOf(told, "handler-failed").message, /EAGAIN/);
  const exit = await call(platform, "forks/exit");
  assert.match(errorOf(exit, "too-many-processes").message, new RegExp(`limit of ${limits.sandboxPidsMax}`));
  errorOf(await bomb, "function-timed-out");
  await neighbourIsWell();
  // The instance of the call that was told lives on, with its children, until the function is gone.
  await manage(platform, "DELETE", "/v1/namespaces/default/functions/forks");
  await eventually("the end of all forked processes", () => (commandsWith(marker) === 0 ? true : null));
});

test("a flood of output is cut with a notice, and its function goes on", async () => {
  // Each has what an instance may write at once for itself.
  for (const path of ["lines", "line"]) {
    await deploy(
      platform,
      `floods-${path}`,
      `export default async (request) => {
       if (request.url.endsWith("/line")) console.log("y".repeat(6_000_000));
       else for (let i = 0; i < 60_000; i++) { console.log(i, "x".repeat(100)); if (i % 1000 === 0) await new Promise(setImmediate); }
       return new Response("flooded");
     };`,
    );
    const answer = await call(platform, `floods-${path}/${path}`);
    assert.equal(answer.text, "flooded");
    const lines = await logsOf(platform, idOf(answer));
    const bytes = lines.reduce((sum, { line }) => sum + Buffer.byteLength(line), 0);
    assert.ok(
      bytes > limits.logBytesPerInvocationMax / 4 && bytes < limits.logBytesPerInvocationMax * 1.1,
      `${bytes} bytes`,
    );
    assert.ok(lines.every(({ line }) => line.length < limits.logLineBytesMax + 100));
    assert.ok(lines.some(({ stream, line }) => stream === "platform" && /bytes of output were dropped/.test(line)));
  }
});

test("what a handler leaves running does not disturb later calls, and its output is not theirs", async () => {
  await deploy(
    platform,
    "leaves",
    `let calls = 0;
     export default async (request) => {
       const call = ++calls;
       if (request.url.endsWith("/wait")) await new Promise((resolve) => setTimeout(resolve, 100));
       else {
         setTimeout(() => console.log("late", call), 20);
         setTimeout(() => { throw new Error("left behind"); }, 30);
         setInterval(() => {}, 1e6);
       }
       console.log("own", call);
       return new Response(String(call));
     };`,
  );
  const first = await call(platform, "leaves/");
  const second = await call(platform, "leaves/wait");
  assert.deepEqual([first.text, second.text], ["1", "2"]);
  assert.deepEqual(
    (await logsOf(platform, idOf(second))).map(({ line }) => line),
    ["own 2"],
  );
  const { items } = JSON.parse((await send(platform, "/v1/namespaces/default/functions/leaves/logs")).text) as {
    items: { line: string; activationId: string | null }[];
  };
  assert.ok(
    items.some(({ line, activationId }) => line === "late 1" && activationId !== idOf(second)),
    JSON.stringify(items),
  );
  assert.ok(
    items.some(({ line }) => line.includes("left behind")),
    JSON.stringify(items),
  );
});

test("a client that goes away cancels its call, and the handler is told", async () => {
  await deploy(
    platform,
    "cancelled",
    // A client that ends its side within 10 ms of its request is taken for one that still waits for the answer.
    `export default (request) => new Promise((resolve) => {
       setTimeout(() => console.log("began"), 50);
       request.signal.addEventListener("abort", () => { console.log("client left"); resolve(new Response("")); });
     });`,
  );
  const outgoing = request(`${platform.url}/fn/cancelled`, { agent: false });
  outgoing.on("error", () => {});
  outgoing.end();
  type Page = {
    items: {
      id: string;
      state: string;
      activationId: string;
      line: string;
      error: { code: string; fault: string } | null;
    }[];
  };
  const page = async (path: string): Promise<Page> =>
    JSON.parse((await send(platform, `/v1/namespaces/default/${path}`)).text) as Page;
  await eventually("the beginning of the call", async () => (await page("functions/cancelled/logs")).items[0] ?? null);
  outgoing.destroy();
  const activation = await eventually(
    "the activation",
    async () => (await page("activations?function=cancelled")).items[0] ?? null,
  );
  assert.deepEqual(
    [activation.state, activation.error?.code, activation.error?.fault],
    ["failed", "client-closed-request", "caller"],
  );
  assert.deepEqual(
    (await logsOf(platform, activation.id)).map(({ line }) => line),
    ["began", "client left"],
  );
});
