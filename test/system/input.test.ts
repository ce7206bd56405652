import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { CodeView, DeployResult } from "../../src/core/api.ts";
import { limits } from "../../src/core/limits.ts";
import { call, deploy, errorOf, manage, send, sendBytes, upload, zip } from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

const FUNCTIONS = "/v1/namespaces/default/functions";
const NOWHERE = `sha256:${"0".repeat(64)}`;

let platform: RunningPlatform;
let code: string;

before(async () => {
  platform = await startPlatform();
  const deployed: DeployResult = await deploy(
    platform,
    "size",
    `export default async (request) => new Response(String((await request.bytes()).length));`,
  );
  code = deployed.version.spec.code;
});

after(async () => {
  await platform?.stop();
});

const nothingHappened = async (): Promise<void> => {
  const { items } = JSON.parse((await send(platform, FUNCTIONS)).text) as {
    items: { name: string; newestVersion: number }[];
  };
  assert.deepEqual(
    items.map(({ name, newestVersion }) => [name, newestVersion]),
    [["size", 1]],
  );
  assert.equal((await call(platform, "size", { method: "POST", body: "four" })).text, "4");
};

test("a management body that is no JSON, of the wrong shape or with unknown fields is refused, naming the field", async () => {
  const put = (body: string, type = "application/json") =>
    send(platform, `${FUNCTIONS}/new`, { method: "PUT", body, headers: { "content-type": type } });
  for (const body of ["{", '{"code":', "\xff", "'x'", "{}x"]) assert.equal((await put(body)).status, 400, body);
  errorOf(await put("{"), "invalid-json");
  errorOf(await put("{}", "text/plain"), "unsupported-media-type");
  errorOf(
    await put(JSON.stringify({ code, description: "x".repeat(limits.managementBodyBytesMax) })),
    "payload-too-large",
  );
  const wrong: readonly [unknown, RegExp][] = [
    [[], /object/],
    [null, /object/],
    [{}, /code/],
    [{ code: 5 }, /code/],
    [{ code: "sha256:zz" }, /code/],
    [{ code, bogus: 1 }, /bogus/],
    [{ code, memoryBytesMax: "12" }, /memoryBytesMax/],
    [{ code, timeoutMs: 1e99 }, /timeoutMs/],
    [{ code, environment: { "A=B": "c" } }, /A=B/],
    [{ code, environment: { A: "\0" } }, /A/],
    [{ code, access: "everyone" }, /access/],
  ];
  for (const [body, names] of wrong) {
    const answer = await put(JSON.stringify(body));
    assert.equal(answer.status, 400, answer.text);
    assert.match(errorOf(answer, "invalid-request").message, names);
  }
  for (const bounded of [
    { memoryBytesMax: 1 },
    { timeoutMs: 0 },
    { instanceConcurrency: 0 },
    { timeoutMs: limits.timeoutMsMax + 1 },
  ]) {
    const answer = await put(JSON.stringify({ code, ...bounded }));
    assert.equal(answer.status, 400, answer.text);
    errorOf(answer, "limit-exceeded");
  }
  errorOf(await put(JSON.stringify({ code: NOWHERE })), "code-not-found");
  errorOf(await put(JSON.stringify({ code, secrets: ["none"] })), "secret-not-found");
  await nothingHappened();
});

test("an unknown runtime and an unknown handler model are answered with the known ones", async () => {
  const runtime = await manage(platform, "PUT", `${FUNCTIONS}/new`, { code, runtime: "cobol" });
  assert.equal(runtime.status, 400);
  assert.match(errorOf(runtime, "unknown-runtime").hint, /nodejs26\.x.*python3/);
  const model = await manage(platform, "PUT", `${FUNCTIONS}/new`, { code, handlerModel: "cgi" });
  assert.equal(model.status, 400);
  assert.match(errorOf(model, "unknown-handler-model").hint, /web.*lambda/);
  await nothingHappened();
});

test("queries of the wrong shape are refused, and so are changes that make no sense", async () => {
  const wrong = [
    `${FUNCTIONS}?limit=0`,
    `${FUNCTIONS}?limit=many`,
    `${FUNCTIONS}?unknown=1`,
    `${FUNCTIONS}/size/logs?since=yesterday`,
    `${FUNCTIONS}/size/logs?follow=perhaps`,
    "/v1/namespaces/default/activations?state=lost",
    "/v1/status?x",
  ];
  for (const path of wrong) errorOf(await send(platform, path), "invalid-request");
  const post = (path: string, body: unknown) => manage(platform, "POST", `${FUNCTIONS}/size/${path}`, body);
  errorOf(await post("publish", { version: "1" }), "invalid-request");
  errorOf(await post("publish", { version: 99 }), "version-not-found");
  errorOf(await post("rollback", {}), "not-acceptable-state");
  const alias = (body: unknown) => manage(platform, "PUT", `${FUNCTIONS}/size/aliases/a`, body);
  errorOf(await alias({ version: 1, additional: { version: 1, weight: 2 } }), "invalid-request");
  errorOf(await alias({ version: 7 }), "version-not-found");
  errorOf(await manage(platform, "PUT", `${FUNCTIONS}/size/aliases/12`, { version: 1 }), "invalid-name");
  errorOf(
    await manage(platform, "PUT", "/v1/namespaces/default/secrets/a", { value: "x".repeat(limits.secretBytesMax + 1) }),
    "payload-too-large",
  );
  await nothingHappened();
});

test("a body larger than its limit is refused, said beforehand or not, and the function goes on", async () => {
  const post = { method: "POST" };
  const announced = { "content-length": String(limits.requestBodyBytesMax + 1) };
  const said = await send(platform, "/fn/size", { ...post, headers: announced, pieces: [] });
  assert.equal(said.status, 413);
  errorOf(said, "payload-too-large");
  const piece = Buffer.alloc(1 << 20);
  const streamed = await call(platform, "size", {
    ...post,
    pieces: repeated(piece, limits.requestBodyBytesMax / piece.length + 1),
  });
  assert.equal(streamed.status, 413);
  errorOf(streamed, "payload-too-large");
  const later = { prefer: "respond-async" };
  const body = Buffer.alloc(limits.asyncBodyBytesMax + 1);
  errorOf(await call(platform, "size", { ...post, headers: later, body }), "payload-too-large");
  errorOf(await call(platform, "size", { ...post, headers: later, pieces: [body] }), "payload-too-large");
  assert.equal((await call(platform, "size", { ...post, pieces: repeated(piece, 4) })).text, String(4 * piece.length));
  await nothingHappened();
});

test("a body that is not asked for before it is known to be too large is not sent", async () => {
  const head = `POST /fn/size HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: `;
  assert.match(await sendBytes(platform, `${head}${limits.requestBodyBytesMax + 1}\r\n\r\n`), /^HTTP\/1\.1 413 /);
  assert.match(
    await sendBytes(platform, `${head}3\r\n\r\nabc`),
    /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK[^]*\r\n\r\n3$/,
  );
});

test("a package that would leave its folder, or holds what is no file, is refused as a whole", async () => {
  const index = { path: "index.mjs", content: "export default () => new Response('')" };
  const DEVICE = 0o020666;
  const PIPE = 0o010644;
  const LINK = 0o120777;
  const archives: readonly [string, Buffer][] = [
    ["up", zip([index, { path: "../evil.mjs", content: "" }])],
    ["up within", zip([index, { path: "a/../../evil.mjs", content: "" }])],
    ["absolute", zip([index, { path: "/tmp/evil.mjs", content: "" }])],
    ["backslash", zip([index, { path: "..\\evil.mjs", content: "" }])],
    ["link out", zip([index, { path: "passwd", content: "/etc/passwd", mode: LINK }])],
    ["link up", zip([index, { path: "a/b", content: "../../../etc/passwd", mode: LINK }])],
    [
      "through a link",
      zip([
        { path: "d", content: "/tmp", mode: LINK },
        { path: "d/evil.mjs", content: "" },
      ]),
    ],
    ["device", zip([index, { path: "null", content: "", mode: DEVICE }])],
    ["pipe", zip([index, { path: "pipe", content: "", mode: PIPE }])],
    ["null character", zip([index, { path: "a\0b", content: "" }])],
    ["twice", zip([index, index])],
    ["path too long", zip([{ path: `${"x".repeat(limits.packagePathBytesMax)}.mjs`, content: "" }])],
    ["no archive", Buffer.from("PK, not really")],
    ["nothing", Buffer.alloc(0)],
    ["cut", zip([index]).subarray(0, -8)],
  ];
  for (const [what, archive] of archives) {
    const answer = await upload(platform, archive);
    assert.equal(answer.status, 400, `${what}: ${answer.text}`);
    errorOf(answer, "invalid-package");
  }
  errorOf(
    await send(platform, "/v1/code", { method: "POST", headers: { "content-type": "text/html" }, body: "x" }),
    "unsupported-media-type",
  );
  const good = await upload(platform, zip([index, { path: "link.mjs", content: "index.mjs", mode: LINK }]));
  assert.equal(good.status, 201);
  assert.equal((JSON.parse(good.text) as CodeView).files, 2);
  await nothingHappened();
});

test("odd names are refused on every route, whatever their spelling, and reach nothing", async () => {
  const odd = [
    "%2e%2e",
    "..%2f..%2fetc",
    "%00",
    "a%00b",
    "%ff",
    "%E0%A4%A",
    "é",
    "%F0%9F%98%80",
    "a%20b",
    "a%0Ab",
    "-a",
    "a-",
    "a;b",
    "a%5Cb",
    "a%2Fb%2Fc%2Fd",
    "other%2F%2Fsize",
    "%2Fsize",
    "size%2F",
    "__proto__",
    "x".repeat(65),
    "x".repeat(5_000),
  ];
  const routes: readonly [string, (name: string) => string, unknown?][] = [
    ["GET", (name) => `/fn/${name}`],
    ["GET", (name) => `/fn/size:${name}`],
    ["GET", (name) => `/ns/${name}/fn/size`],
    ["GET", (name) => `${FUNCTIONS}/${name}`],
    ["PUT", (name) => `${FUNCTIONS}/${name}`, { code }],
    ["DELETE", (name) => `${FUNCTIONS}/${name}`],
    ["GET", (name) => `${FUNCTIONS}/${name}/versions`],
    ["GET", (name) => `${FUNCTIONS}/${name}/logs`],
    ["POST", (name) => `${FUNCTIONS}/${name}/invoke`],
    ["POST", (name) => `${FUNCTIONS}/size/invoke?qualifier=${name}`],
    ["PUT", (name) => `${FUNCTIONS}/size/aliases/${name}`, { version: 1 }],
    ["DELETE", (name) => `${FUNCTIONS}/size/aliases/${name}`],
    ["GET", (name) => `/v1/namespaces/${name}/functions`],
    ["PUT", (name) => `/v1/namespaces/${name}/functions/size`, { code }],
    ["GET", (name) => `/v1/namespaces/${name}/secrets`],
    ["GET", (name) => `/v1/namespaces/${name}/activations`],
    ["PUT", (name) => `/v1/namespaces/default/secrets/${name}`, { value: "v" }],
    ["DELETE", (name) => `/v1/namespaces/default/secrets/${name}`],
    ["GET", (name) => `/v1/namespaces/default/activations/${name}`],
    ["GET", (name) => `/v1/namespaces/default/activations/${name}/logs`],
    ["GET", (name) => `/v1/namespaces/default/activations/${name}/result`],
    ["HEAD", (name) => `/v1/code/${name}`],
  ];
  for (const name of odd) {
    const answers = await Promise.all(
      routes.map(async ([method, path, body]) => ({
        what: `${method} ${path(name)}`,
        answer: await oddly(method, path(name), body),
      })),
    );
    for (const { what, answer } of answers)
      assert.ok(answer.status === 400 || answer.status === 404, `${what} → ${answer.status} ${answer.text}`);
  }
  errorOf(
    await manage(platform, "PUT", `${FUNCTIONS}/size:1`, { code, description: "not a function's name" }),
    "invalid-name",
  );
  await nothingHappened();
});

test("unknown paths and methods are answered with what there is", async () => {
  for (const path of [
    "/",
    "/nope",
    "/v1",
    "/v1/",
    "/v1/nope",
    "/fn",
    "/ns/x",
    "/v1/namespaces//functions",
    "//fn/size",
  ]) {
    assert.equal((await send(platform, path)).status, 404, path);
  }
  errorOf(await call(platform, "sise"), "function-not-found");
  assert.match(errorOf(await call(platform, "sise")).message, /size/);
  errorOf(await call(platform, "size:9"), "version-not-found");
  for (const method of ["POST", "PATCH", "OPTIONS", "DELETE"]) {
    const answer = await send(platform, "/v1/status", { method });
    assert.deepEqual([answer.status, answer.headers["allow"]], [405, "GET"]);
    errorOf(answer, "method-not-allowed");
  }
  // Every method reaches a function; what it does with it is its business.
  for (const method of ["PROPFIND", "OPTIONS", "DELETE", "TRACE"])
    assert.equal((await call(platform, "size", { method })).status, 200);
  assert.equal((await call(platform, "size", { method: "HEAD" })).text, "");
});

test("without authentication, other hosts and other sites' pages are refused", async () => {
  const own = { host: new URL(platform.url).host };
  const refused: readonly Record<string, string>[] = [
    { host: "evil.example" },
    { host: "localhost.evil.example" },
    { host: "localhost@evil.example" },
    { ...own, origin: "http://evil.example" },
    { ...own, origin: "https://localhost.evil.example" },
    { ...own, origin: "null" },
  ];
  for (const path of ["/fn/size", "/v1/status", "/metrics", "/openapi.json", "/nope"]) {
    for (const headers of refused) {
      const answer = await send(platform, path, { headers });
      assert.equal(answer.status, 403, `${path} ${JSON.stringify(headers)}`);
      errorOf(answer, "forbidden");
    }
  }
  for (const headers of [
    own,
    { host: "localhost" },
    { host: "LOCALHOST:1" },
    { host: "[::1]:4" },
    { ...own, origin: "http://localhost:9" },
  ]) {
    assert.equal((await send(platform, "/v1/status", { headers })).status, 200, JSON.stringify(headers));
  }
  assert.equal((await send(platform, "/healthz", { headers: { host: "balancer.example" } })).status, 200);
});

test("what is no HTTP, or has too large a head, is answered in the platform's shape and ends only its connection", async () => {
  const line = "POST /fn/size HTTP/1.1\r\nHost: localhost\r\n";
  const broken = [
    "\x16\x03\x01\x02\x00 this is TLS\r\n\r\n",
    "GET /fn/size HTTP/1.1\r\nConnection: close\r\n\r\n",
    `${line}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    `${line}Content-Length: -1\r\n\r\n`,
    `${line}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab`,
    `${line}X\r\n: y\r\n\r\n`,
    `${line}Transfer-Encoding: gzip\r\n\r\nabc`,
  ];
  for (const bytes of broken) {
    const [head = "", body = ""] = (await sendBytes(platform, bytes)).split("\r\n\r\n");
    assert.match(head, /^HTTP\/1\.1 400 Bad Request\r\n/, JSON.stringify(bytes));
    assert.match(head, /x-request-id: [0-9a-f-]{36}/);
    assert.equal((JSON.parse(body) as { error: { code: string } }).error.code, "invalid-request");
  }
  const large = await call(platform, "size", { headers: { x: "y".repeat(limits.headerBytesMax) } });
  assert.equal(large.status, 431);
  errorOf(large, "headers-too-large");
  const many = Object.fromEntries(Array.from({ length: 2_500 }, (_, index) => [`h${index}`, "1"]));
  assert.equal((await call(platform, "size", { headers: many })).status, 200);
  const absolute = await sendBytes(
    platform,
    "GET http://localhost/fn/size HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
  );
  assert.match(absolute, /^HTTP\/1\.1 200 /);
  await nothingHappened();
});

function* repeated(piece: Buffer, count: number): Iterable<Buffer> {
  for (let index = 0; index < count; index++) yield piece;
}

/** Node refuses to send some of these paths: then bytes are sent. */
async function oddly(
  method: string,
  path: string,
  body: unknown,
): Promise<{ readonly status: number; readonly text: string }> {
  const json = body === undefined ? "" : JSON.stringify(body);
  const head = `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n`;
  const text = await sendBytes(platform, Buffer.from(`${head}Content-Length: ${json.length}\r\n\r\n${json}`));
  return { status: Number(/^HTTP\/1\.1 ([0-9]{3})/.exec(text)?.[1]), text };
}
