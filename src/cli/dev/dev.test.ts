import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../core/clock.ts";
import { readProjectFolder } from "../project-folder.ts";
import { run, temporaryFolder } from "../testing/run.ts";
import type { Stage } from "../testing/run.ts";
import { errorScript, scriptedPlatform } from "../testing/scripted-platform.ts";
import type { Script } from "../testing/scripted-platform.ts";
import { functionView, logView, versionView } from "../testing/views.ts";
import { isLoopback } from "./local-platform.ts";
import { checkTypes, readable } from "./type-check.ts";

/** A platform on which every deploy but the second succeeds, as the next version, and that sends one log line to each follower. */
function routes(): Readonly<Record<string, Script>> {
  let version = 0;
  const known: Readonly<Record<string, Script>> = {
    "GET /healthz": { status: 200 },
    "GET /v1/namespaces/default/functions/hello/logs": (_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`event: log\nid: 1\ndata: ${JSON.stringify(logView(1, "from the function"))}\n\n`);
    },
    "PUT /v1/namespaces/default/functions/hello": (_, response) => {
      version++;
      const script =
        version === 2
          ? errorScript("handler-syntax-error", 502, { fault: "function", message: "index.mjs:3:5 oops" })
          : null;
      if (script !== null && typeof script === "object") {
        response.writeHead(script.status).end(JSON.stringify(script.body));
        return;
      }
      const result = { change: "updated", function: functionView, version: { ...versionView, number: version } };
      response.end(JSON.stringify(result));
    },
  };
  return new Proxy(known, {
    get: (target, route: string) => (route.startsWith("HEAD /v1/code/") ? { status: 200 } : target[route]),
  });
}

/** Interrupts after the steps: each waits for a text in what was written since the last, then acts. */
function story(steps: readonly (readonly [RegExp, () => void])[]): NonNullable<Stage["onOutput"]> {
  const waiting = [...steps];
  let from = 0;
  return (written, interrupt) => {
    for (let step = waiting[0]; step !== undefined && step[0].test(written.slice(from)); step = waiting[0]) {
      waiting.shift();
      from = written.length;
      step[1]();
      if (waiting.length === 0) setImmediate(interrupt);
    }
  };
}

test("each change is deployed; one that fails is shown while the version before keeps running", async () => {
  await using platform = await scriptedPlatform(routes());
  await using home = await temporaryFolder();
  const file = join(home.path, "index.mjs");
  await writeFile(file, "export default 1");
  const write = (text: string) => () => void writeFile(file, text);
  const ran = await run(platform.url, ["dev", home.path, "--name", "hello"], {
    clock: systemClock,
    onOutput: story([
      [/version 1 live/, write("export default 2")],
      [/version 1 keeps running/, write("export default 3")],
      [/version 3 live/, () => {}],
    ]),
  });
  assert.equal(ran.code, 130);
  assert.match(ran.stderr, /hello version 1 live in .* at http:.*\/fn\/hello\n/);
  assert.match(ran.stderr, /error: index\.mjs:3:5 oops\n[^]* {2}version 1 keeps running; waiting for a change\n/);
  assert.match(ran.stdout, /out {4}from the function\n/);
  const deploys = platform.seen
    .filter((request) => request.method === "PUT")
    .map((request) => JSON.parse(request.body.toString()));
  assert.equal(deploys.length, 3);
  assert.notEqual(deploys[0].code, deploys[2].code);
});

test("a folder that cannot be deployed yet is waited for; one that is not there is an error", async () => {
  await using platform = await scriptedPlatform(routes());
  await using home = await temporaryFolder();
  const ran = await run(platform.url, ["dev", home.path, "--name", "hello"], {
    clock: systemClock,
    onOutput: story([
      [/waiting for a change/, () => void writeFile(join(home.path, "index.mjs"), "1")],
      [/version 1 live/, () => {}],
    ]),
  });
  assert.equal(ran.code, 130);
  assert.match(ran.stderr, /no file here that looks like a handler/);
  assert.equal((await run(platform.url, ["dev", join(home.path, "nothing")])).code, 2);
});

/** A stand-in for `koine up`: answers every request, and writes to a file when it is asked to end. */
const standIn = `
import { createServer } from "node:http";
import { writeFileSync } from "node:fs";
const argv = process.argv.slice(2);
const at = (name) => argv[argv.indexOf(name) + 1];
writeFileSync("started", argv.join(" "));
const server = createServer((request, response) => {
  response.statusCode = request.url === "/readyz" ? 200 : 404;
  response.end("{}");
}).listen(Number(at("--port")), at("--host"));
process.on("SIGINT", () => {
  writeFileSync("ended", "");
  process.exit(0);
});
`;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

test("where no platform answers on this machine one is started, and ended with dev", async () => {
  await using home = await temporaryFolder();
  await writeFile(join(home.path, "stand-in.mjs"), standIn);
  await writeFile(join(home.path, "index.mjs"), "");
  const port = await freePort();
  const ran = await run(`http://127.0.0.1:${port}`, ["dev", "index.mjs"], {
    cwd: home.path,
    launch: [process.execPath, "stand-in.mjs"],
    clock: systemClock,
    onOutput: story([[/waiting for a change/, () => {}]]),
  });
  assert.equal(ran.code, 130);
  assert.match(ran.stderr, /starting one for as long as this runs/);
  assert.equal(await readFile(join(home.path, "started"), "utf8"), `up --host 127.0.0.1 --port ${port} --data .koine`);
  assert.equal(await readFile(join(home.path, "ended"), "utf8"), "");
});

test("a platform that ends while it starts says what it said", async () => {
  await using home = await temporaryFolder();
  await writeFile(join(home.path, "index.mjs"), "");
  const ran = await run(`http://127.0.0.1:${await freePort()}`, ["dev"], {
    cwd: home.path,
    launch: [process.execPath, "-e", "console.error('no room'); process.exit(1)"],
  });
  assert.equal(ran.code, 1);
  assert.match(ran.stderr, /The platform ended while it started: no room/);
});

test("a platform elsewhere is never started", async () => {
  assert.deepEqual(
    ["http://localhost:1", "http://127.0.0.1", "http://[::1]:4000", "https://localhost", "http://10.0.0.1"].map((url) =>
      isLoopback(new URL(url)),
    ),
    [true, true, true, false, false],
  );
});

test("type errors are found without a tsconfig.json, and named by file, line and column", async () => {
  await using home = await temporaryFolder();
  await writeFile(
    join(home.path, "index.ts"),
    'import { hostname } from "node:os";\nexport const port: number = hostname();\n',
  );
  const folder = await readProjectFolder(home.path);
  const signal = new AbortController().signal;
  const found = await checkTypes(folder, { environment: process.env, signal });
  assert.deepEqual(found, ["index.ts:2:14 TS2322: Type 'string' is not assignable to type 'number'."]);
  assert.equal(readable("src/a (1).ts(3,5): error TS1: x"), "src/a (1).ts:3:5 TS1: x");
});
