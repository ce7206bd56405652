import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import type { ActivationView, InvokeAccepted, Page } from "../../src/core/api.ts";
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
  read,
  send,
  showFunction,
} from "./api.ts";
import { type CommandResult, type RunningPlatform, startPlatform } from "./platform.ts";

const MIB = 1024 * 1024;
/** Far more than all windows and socket buffers on the way hold, far less than what is sent. */
const UNDERWAY_BYTES_MAX = 24 * MIB;
const STREAM_BYTES = 96 * MIB;

let platform: RunningPlatform;

before(async () => {
  platform = await startPlatform();
});

after(async () => {
  await platform?.stop();
});

test("fifty first calls at once to a function without a process are all answered", async () => {
  await deploy(
    platform,
    "sudden",
    `await new Promise((resolve) => setTimeout(resolve, 20)); export default () => new Response("here");`,
    { spec: { check: false } },
  );
  assert.deepEqual((await showFunction(platform, "sudden")).instances, { starting: 0, idle: 0, busy: 0, frozen: 0 });
  const answers = await Promise.all(Array.from({ length: 50 }, () => call(platform, "sudden")));
  for (const answer of answers) assert.deepEqual([answer.status, answer.text], [200, "here"]);
  assert.equal(new Set(answers.map(idOf)).size, 50);
  assert.ok(answers.some(({ headers }) => headers["x-koine-start"] === "cold"));
  const warm = await call(platform, "sudden");
  assert.equal(warm.headers["x-koine-start"], "warm");
  assert.equal((await activationOf(platform, idOf(warm))).cold, false);
});

test("an idle function has no process, and the next call starts one", async () => {
  const marker = `64${process.pid}3`;
  await deploy(
    platform,
    "quiet",
    `import { spawn } from "node:child_process"; spawn("/bin/sleep", ["${marker}"]); export default () => new Response("awake");`,
    { spec: { idleTimeoutMs: 300 } },
  );
  assert.equal((await call(platform, "quiet")).text, "awake");
  await eventually("that it stops", async () => {
    const { starting, idle, busy, frozen } = (await showFunction(platform, "quiet")).instances;
    return starting + idle + busy + frozen === 0 && commandsWith(marker) === 0 ? true : null;
  });
  const again = await call(platform, "quiet");
  assert.deepEqual([again.text, again.headers["x-koine-start"]], ["awake", "cold"]);
});

test("deploys, roll-backs and alias changes under load fail no call, and hold from the next call on", async () => {
  const source = (number: number): string =>
    `export default async () => { await new Promise(setImmediate); return new Response("v${number}"); };`;
  await deploy(platform, "moving", source(1));
  await deploy(platform, "moving", source(2));
  await manage(platform, "PUT", "/v1/namespaces/default/functions/moving/aliases/stable", { version: 1 });
  const changing = { over: false };
  let calls = 0;
  const load = Array.from({ length: 4 }, async (_, index) => {
    while (!changing.over) {
      const answer = await call(platform, index % 2 === 0 ? "moving" : "moving:stable");
      assert.equal(answer.status, 200, answer.text);
      assert.equal(answer.text, `v${answer.headers["x-koine-version"]}`);
      calls++;
    }
  });
  const change = async (): Promise<void> => {
    try {
      for (let round = 0; round < 8; round++) {
        const back = await manage(platform, "POST", "/v1/namespaces/default/functions/moving/rollback", {});
        assert.equal(back.status, 200, back.text);
        const live = (JSON.parse(back.text) as { liveVersion: number }).liveVersion;
        assert.equal((await call(platform, "moving")).text, `v${live}`);
        const version = 1 + (round % 2);
        await manage(platform, "PUT", "/v1/namespaces/default/functions/moving/aliases/stable", { version });
        assert.equal((await call(platform, "moving:stable")).text, `v${version}`);
      }
      await deploy(platform, "moving", source(3));
      assert.equal((await call(platform, "moving")).text, "v3");
    } finally {
      changing.over = true;
    }
  };
  await Promise.all([...load, change()]);
  assert.ok(calls > 50, `${calls} calls`);
  assert.equal((await call(platform, "moving:2")).text, "v2");
});

test("an alias with a weight divides the calls between two versions", async () => {
  await deploy(platform, "split", `export default () => new Response("old");`);
  await deploy(platform, "split", `export default () => new Response("new");`);
  const put = async (weight: number): Promise<void> => {
    const answer = await manage(platform, "PUT", "/v1/namespaces/default/functions/split/aliases/canary", {
      version: 1,
      additional: { version: 2, weight },
    });
    assert.equal(answer.status, 200, answer.text);
  };
  const share = async (): Promise<number> => {
    let fresh = 0;
    for (let group = 0; group < 20; group++) {
      const answers = await Promise.all(Array.from({ length: 10 }, () => call(platform, "split:canary")));
      fresh += answers.filter(({ text }) => text === "new").length;
    }
    return fresh / 200;
  };
  // Six standard deviations of 200 fair coins are 0.21.
  await put(0.5);
  const half = await share();
  assert.ok(half > 0.29 && half < 0.71, `${half}`);
  await put(0);
  assert.equal(await share(), 0);
  await put(1);
  assert.equal(await share(), 1);
});

test("a timeout holds for an answer that streams: what was sent arrives, and the answer is not taken for whole", async () => {
  await deploy(
    platform,
    "endless",
    `export default () => new Response(new ReadableStream({ start(controller) { controller.enqueue(new TextEncoder().encode("first")); } }));`,
    { spec: { timeoutMs: 700 } },
  );
  const answer = await call(platform, "endless");
  assert.deepEqual([answer.status, answer.text, answer.complete], [200, "first", false]);
  const { state, error } = await activationOf(platform, idOf(answer));
  assert.deepEqual([state, error?.code], ["timedOut", "function-timed-out"]);
  const event = await manage(platform, "POST", "/v1/namespaces/default/functions/endless/invoke", {});
  assert.ok(event.status === 504 || !event.complete);
});

test("request and answer stream at the same time: each piece comes back before the next is sent", async () => {
  await deploy(platform, "echo", `export default (request) => new Response(request.body);`);
  await deploy(
    platform,
    "echo-python",
    {
      "app.py": `async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        message = await receive()
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": message.get("more_body", False)})
        if not message.get("more_body", False):
            return
`,
    },
    { spec: { runtime: "python3", handler: "app.app" } },
  );
  for (const name of ["echo", "echo-python"]) {
    const outgoing = post(`/fn/${name}`);
    outgoing.write("piece 0");
    const incoming = await answerOf(outgoing);
    const pieces = piecesOf(incoming);
    assert.equal(await pieces.next(), "piece 0");
    for (let index = 1; index < 20; index++) {
      outgoing.write(`piece ${index}`);
      assert.equal(await pieces.next(), `piece ${index}`);
    }
    outgoing.end();
    assert.equal(await pieces.next(), null);
  }
});

test("server-sent events arrive one by one, while the function waits", async () => {
  await deploy(
    platform,
    "events",
    `let release = () => {};
     export default (request) => {
       if (request.url.endsWith("/release")) { release(); return new Response("released"); }
       const text = new TextEncoder();
       let count = 0;
       return new Response(new ReadableStream({
         async pull(controller) {
           if (count > 0) await new Promise((resolve) => (release = resolve));
           if (count === 3) return controller.close();
           controller.enqueue(text.encode("data: " + ++count + "\\n\\n"));
         },
       }, { highWaterMark: 0 }), { headers: { "content-type": "text/event-stream" } });
     };`,
    { spec: { instanceConcurrency: 2 } },
  );
  const incoming = await answerOf(request(`${platform.url}/fn/events`, { agent: false }).end());
  assert.equal(incoming.headers["content-type"], "text/event-stream");
  const pieces = piecesOf(incoming);
  for (let count = 1; count <= 3; count++) {
    assert.equal(await pieces.next(), `data: ${count}\n\n`);
    assert.equal((await call(platform, "events/release")).text, "released");
  }
  assert.equal(await pieces.next(), null);
});

const TWO_WAYS = `let sent = 0, received = 0, release = () => {};
  const released = new Promise((resolve) => (release = resolve));
  export default async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname.endsWith("/progress")) return Response.json({ sent, received });
    if (pathname.endsWith("/release")) { release(); return new Response(""); }
    if (pathname.endsWith("/take")) {
      await released;
      for await (const chunk of request.body) received += chunk.length;
      return new Response(String(received));
    }
    const chunk = new Uint8Array(65536);
    return new Response(new ReadableStream({ pull(controller) {
      if (sent >= ${STREAM_BYTES}) return controller.close();
      sent += chunk.length;
      controller.enqueue(chunk);
    } }));
  };`;

test("a reader that stops reading stops the function, not the platform's memory", async () => {
  await deploy(platform, "gives", TWO_WAYS, { spec: { instanceConcurrency: 4, memoryBytesMax: 256 * MIB } });
  const before = residentBytes(platform.pid);
  const { hostname, port } = new URL(platform.url);
  const socket = connect({ host: hostname, port: Number(port) });
  socket.write("GET /fn/gives HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  socket.pause();
  const sent = await settled(
    async () => (JSON.parse((await call(platform, "gives/progress")).text) as { sent: number }).sent,
  );
  assert.ok(sent > 0 && sent < UNDERWAY_BYTES_MAX, `${sent} bytes were produced for a reader that does not read`);
  assert.ok(residentBytes(platform.pid) - before < UNDERWAY_BYTES_MAX);
  let bytes = 0;
  socket.on("data", (chunk: Buffer) => (bytes += chunk.length));
  socket.resume();
  await once(socket, "close", { signal: AbortSignal.timeout(60_000) });
  assert.ok(bytes > STREAM_BYTES, `${bytes} bytes`);
});

test("a function that does not read its request stops the sender, not the platform's memory", async () => {
  await deploy(platform, "takes", TWO_WAYS, { spec: { instanceConcurrency: 4, memoryBytesMax: 256 * MIB } });
  const before = residentBytes(platform.pid);
  const outgoing = post("/fn/takes/take");
  const piece = Buffer.alloc(65_536);
  let written = 0;
  const sending = (async () => {
    for (; written < STREAM_BYTES; written += piece.length)
      if (!outgoing.write(piece)) await once(outgoing, "drain", { signal: AbortSignal.timeout(60_000) });
    outgoing.end();
  })();
  const stuckAt = await settled(async () => written);
  assert.ok(stuckAt < UNDERWAY_BYTES_MAX, `${stuckAt} bytes were taken for a function that does not read`);
  assert.ok(residentBytes(platform.pid) - before < UNDERWAY_BYTES_MAX);
  assert.equal((await call(platform, "takes/release")).status, 200);
  const pieces = piecesOf(await answerOf(outgoing));
  await sending;
  assert.equal(await pieces.next(), String(STREAM_BYTES));
});

test("a call that runs while its function is deleted, or its secret changes, ends as it began; the next one sees the change", async () => {
  const secret = (value: string) => manage(platform, "PUT", "/v1/namespaces/default/secrets/word", { value });
  await secret("first");
  const source = `export default async (request) => {
      const word = process.env.word;
      if (request.url.endsWith("/hold")) { console.log("held"); await new Promise((resolve) => setTimeout(resolve, 1500)); }
      return new Response(word);
    };`;
  await deploy(platform, "held", source, { spec: { secrets: ["word"] } });
  const held = call(platform, "held/hold");
  await eventually("that it is held", async () => {
    const { items } = await read<Page<unknown>>(platform, "/v1/namespaces/default/functions/held/logs");
    return items.length > 0 ? true : null;
  });
  assert.equal((await secret("second")).status, 200);
  assert.equal((await call(platform, "held/")).text, "second");
  assert.equal((await manage(platform, "DELETE", "/v1/namespaces/default/functions/held")).status, 204);
  assert.equal((await call(platform, "held/")).status, 404);
  await deploy(platform, "held", "export default () => new Response('another');");
  assert.equal((await call(platform, "held/")).text, "another");
  assert.equal((await held).text, "first");
});

test("calls that share an instance keep their output apart", async () => {
  await deploy(
    platform,
    "shares",
    `import { setTimeout as wait } from "node:timers/promises";
     export default async (request) => {
       const own = new URL(request.url).searchParams.get("id");
       for (let step = 0; step < 3; step++) { console.log(own, step); await wait(Number(own) % 5); process.stderr.write(own + " err\\n"); }
       return new Response(own);
     };`,
    { spec: { instanceConcurrency: 20 } },
  );
  const python = `import asyncio
async def handler(event, context):
    own = event["queryStringParameters"]["id"]
    for step in range(3):
        print(own, step)
        await asyncio.sleep(int(own) % 5 / 1000)
    return {"statusCode": 200, "body": own}
`;
  await deploy(
    platform,
    "shares-python",
    { "app.py": python },
    { spec: { runtime: "python3", handler: "app.handler", instanceConcurrency: 20 } },
  );
  for (const [name, count] of [
    ["shares", 6],
    ["shares-python", 3],
  ] as const) {
    const answers = await Promise.all(Array.from({ length: 40 }, (_, id) => call(platform, `${name}?id=${id}`)));
    for (const answer of answers) {
      assert.equal(answer.status, 200, answer.text);
      const lines = (await logsOf(platform, idOf(answer))).map(({ line }) => line);
      assert.equal(lines.length, count);
      assert.ok(
        lines.every((line) => line.startsWith(`${answer.text} `)),
        `${answer.text}: ${lines.join(", ")}`,
      );
    }
  }
});

test("a call that need not be waited for is accepted, runs, and keeps its answer", async () => {
  await deploy(
    platform,
    "later",
    `export default async (request) => Response.json({ got: await request.text(), method: request.method }, { status: 201 });`,
  );
  const accepted = await call(platform, "later/path", {
    method: "POST",
    headers: { prefer: "respond-async" },
    body: "soon",
  });
  assert.equal(accepted.status, 202);
  const { activationId } = JSON.parse(accepted.text) as InvokeAccepted;
  const location = `/v1/namespaces/default/activations/${activationId}`;
  assert.deepEqual(
    [accepted.headers["location"], accepted.headers["preference-applied"], idOf(accepted)],
    [location, "respond-async", activationId],
  );
  const activation = await eventually("its end", async () => {
    const shown = await read<ActivationView>(platform, location);
    return shown.state === "queued" || shown.state === "running" ? null : shown;
  });
  assert.deepEqual(
    [activation.state, activation.mode, activation.status, activation.attempt],
    ["succeeded", "async", 201, 1],
  );
  const result = await send(platform, `${location}/result`);
  assert.deepEqual([result.status, JSON.parse(result.text)], [201, { got: "soon", method: "POST" }]);
  errorOf(await call(platform, "nowhere", { headers: { prefer: "respond-async" } }), "function-not-found");
});

test("the command line's exit codes tell the outcomes apart, and its streams the answer from the rest", async () => {
  await deploy(
    platform,
    "outcomes",
    {
      "index.cjs": `exports.handler = async (event) => {
      console.log("got", event.kind);
      if (event.kind === "throw") throw new TypeError("broken");
      if (event.kind === "exit") process.exit(3);
      if (event.kind === "wait") await new Promise((resolve) => setTimeout(resolve, 60_000));
      return { fine: event.kind };
    };`,
    },
    { spec: { timeoutMs: 1_000 } },
  );
  const invoke = (kind: string) => platform.koine(["invoke", "outcomes", "-d", JSON.stringify({ kind })]);
  const [fine, thrown, exited, waited] = (await Promise.all(["ok", "throw", "exit", "wait"].map(invoke))) as [
    CommandResult,
    CommandResult,
    CommandResult,
    CommandResult,
  ];
  assert.deepEqual([fine.code, JSON.parse(fine.stdout)], [0, { fine: "ok" }]);
  assert.match(fine.stderr, /(cold|warm)/);
  assert.equal(thrown.code, 6, thrown.stderr);
  assert.equal(thrown.stdout, "");
  assert.match(thrown.stderr, /TypeError: broken[^]*got throw|got throw[^]*TypeError: broken/);
  assert.equal(exited.code, 6);
  assert.match(exited.stderr, /exit code 3/);
  assert.equal(waited.code, 5, waited.stderr);
  const [unknown, usage, command] = await Promise.all([
    platform.koine(["invoke", "outcome"]),
    platform.koine(["invoke"]),
    platform.koine(["invok", "outcomes"]),
  ]);
  assert.equal(unknown.code, 4);
  assert.match(unknown.stderr, /outcomes/);
  assert.equal(usage.code, 2);
  assert.equal(command.code, 2);
  assert.match(command.stderr, /invoke/);
  const nobody = await platform.koine(["list"], { env: { KOINE_URL: "http://127.0.0.1:9" } });
  assert.equal(nobody.code, 1);
  const page = await platform.koine(["list", "-o", "json"]);
  assert.ok(
    (JSON.parse(page.stdout) as Page<{ name: string }>).items.some(({ name }) => name === "outcomes"),
    page.stdout,
  );
});

function post(path: string): ClientRequest {
  return request(`${platform.url}${path}`, { method: "POST", agent: false });
}

async function answerOf(outgoing: ClientRequest): Promise<IncomingMessage> {
  const [incoming] = (await once(outgoing, "response", { signal: AbortSignal.timeout(30_000) })) as [IncomingMessage];
  return incoming;
}

/** The pieces of an answer as they come; null at its end. */
function piecesOf(incoming: IncomingMessage): { next(): Promise<string | null> } {
  const pieces = incoming.setEncoding("utf8").iterator() as AsyncIterator<string>;
  return {
    async next() {
      const { value, done } = await pieces.next();
      return done === true ? null : value;
    },
  };
}

/** A growing figure once it grows no more. */
async function settled(figure: () => Promise<number>): Promise<number> {
  let last = -1;
  let same = 0;
  return await eventually("that it grows no more", async () => {
    const now = await figure();
    same = now === last && now > 0 ? same + 1 : 0;
    last = now;
    return same >= 12 ? now : null;
  });
}

function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}
