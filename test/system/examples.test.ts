import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type RunningPlatform, startPlatform } from "./platform.ts";

const EXAMPLES = fileURLToPath(new URL("../../examples", import.meta.url));
/** Secret, body and signature of GitHub's documentation, "Testing the webhook payload validation". */
const GITHUB_VECTOR = {
  secret: "It's a Secret to Everybody",
  body: "Hello, World!",
  signature: "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
};
const ADMIN = "open sesame";
const JSON_TYPE = { "content-type": "application/json" };

let platform: RunningPlatform;

before(async () => {
  platform = await startPlatform();
});

after(async () => {
  await platform?.stop();
});

test("hello greets by name", async () => {
  await deploy("hello");
  const answer = await call("hello?name=you");
  assert.equal(answer.status, 200);
  assert.equal(await answer.text(), "Hello, you!\n");
  assert.equal(await (await call("hello?name=%C3%85sa%20%26%20co")).text(), "Hello, Åsa & co!\n");
  assert.equal(await (await call("hello")).text(), "Hello, world!\n");
});

test("thumbnail turns a JPEG into a WebP of the width that was asked for, upright by its EXIF orientation", async () => {
  await deploy("thumbnail");
  const jpeg = await readFile(join(EXAMPLES, "thumbnail", "sample.jpg"));
  const answer = await call("thumbnail?width=200", { method: "POST", body: jpeg });
  assert.equal(answer.status, 200, await explain(answer));
  assert.equal(answer.headers.get("content-type"), "image/webp");
  assert.deepEqual(webpSize(Buffer.from(await answer.arrayBuffer())), { width: 200, height: 267 });
  const larger = await call("thumbnail?width=2000", { method: "POST", body: jpeg });
  assert.deepEqual(webpSize(Buffer.from(await larger.arrayBuffer())), { width: 600, height: 800 });
});

test("thumbnail says what is wrong with a body or a width, and goes on", async () => {
  const jpeg = await readFile(join(EXAMPLES, "thumbnail", "sample.jpg"));
  const post = async (path: string, body: Uint8Array | string): Promise<[number, unknown]> => {
    const answer = await call(path, { method: "POST", body });
    return [answer.status, ((await answer.json()) as { error: unknown }).error];
  };
  assert.deepEqual(await post("thumbnail", "GIF89a"), [415, "the body is not a JPEG"]);
  assert.deepEqual(await post("thumbnail", ""), [400, "the body is empty: POST a JPEG"]);
  assert.equal((await post("thumbnail?width=9999", jpeg))[0], 400);
  const [status, error] = await post("thumbnail", jpeg.subarray(0, 5_000));
  assert.equal(status, 400);
  assert.match(String(error), /cannot be read/);
  assert.equal((await call("thumbnail")).status, 405);
  assert.equal((await call("thumbnail", { method: "POST", body: jpeg })).status, 200);
});

test("csv-report summarises 100,000 streamed rows in 128 MB, whatever the chunks cut through", async () => {
  await deploy("csv-report");
  const answer = await stream("/fn/csv-report", csvChunks(100_000));
  assert.equal(answer.status, 200, answer.body);
  const { rows, badRows, columns } = JSON.parse(answer.body) as CsvSummary;
  assert.equal(rows, 100_000);
  assert.deepEqual(badRows, {
    count: 2,
    first: [
      { line: 100_001 * 2, reason: "2 fields instead of 4" },
      { line: 100_001 * 2 + 1, reason: "a quote stands inside a field that does not begin with one" },
    ],
  });
  assert.deepEqual(
    columns.map(({ name, type, count }) => [name, type, count]),
    [
      ["id", "number", 100_000],
      ["city", "text", 100_000],
      ["temperature", "number", 99_900],
      ["note", "text", 100_000],
    ],
  );
  const [id, city, temperature, note] = columns;
  assert.deepEqual([id?.min, id?.max, id?.mean], [0, 99_999, 49_999.5]);
  assert.equal(id?.distinct, null);
  assert.deepEqual(city?.topValues, [
    { value: "Łódź", count: 33_334 },
    { value: "København, DK", count: 33_333 },
    { value: "東京", count: 33_333 },
  ]);
  assert.deepEqual([temperature?.min, temperature?.max], [-19.5, 29.5]);
  assert.deepEqual([note?.distinct, note?.topValues[0]], [1, { value: 'says "brr"\r\nand leaves', count: 100_000 }]);

  const [activation] = (
    await management<{ items: { memoryBytes: number }[] }>("activations?function=csv-report&limit=1")
  ).items;
  assert.ok(activation !== undefined && activation.memoryBytes <= 128 * 1024 * 1024, JSON.stringify(activation));
});

test("csv-report refuses what is no CSV with a reason", async () => {
  const latin1 = await call("csv-report", { method: "POST", body: Buffer.from("name\nJos\xe9\n", "latin1") });
  assert.deepEqual([latin1.status, await latin1.json()], [400, { error: "the body is not UTF-8" }]);
  assert.equal((await call("csv-report", { method: "POST" })).status, 400);
  const open = await call("csv-report", { method: "POST", body: `a\n"${"x".repeat(2_000_000)}` });
  assert.equal(open.status, 413);
  assert.match(((await open.json()) as { error: string }).error, /^line 2: .*quote not closed/);
  const semicolons = await call("csv-report?delimiter=semicolon", { method: "POST", body: "a;b\n1;2,5\n" });
  assert.equal(((await semicolons.json()) as CsvSummary).columns[1]?.max, "2,5");
});

test("webhook believes GitHub's own signature, and no other", async () => {
  await setSecret("WEBHOOK_SECRET", GITHUB_VECTOR.secret);
  await deploy("webhook");
  const send = async (body: string, headers: Record<string, string>): Promise<[number, Record<string, unknown>]> => {
    const answer = await call("webhook", { method: "POST", body, headers: { ...JSON_TYPE, ...headers } });
    return [answer.status, (await answer.json()) as Record<string, unknown>];
  };
  const sign = (body: string): string =>
    `sha256=${createHmac("sha256", GITHUB_VECTOR.secret).update(body).digest("hex")}`;

  const [status, answer] = await send(GITHUB_VECTOR.body, { "x-hub-signature-256": GITHUB_VECTOR.signature });
  assert.equal(status, 400, "the vector's body is text");
  assert.match(String(answer["error"]), /^the signature is right/);
  assert.equal((await send(`${GITHUB_VECTOR.body} `, { "x-hub-signature-256": GITHUB_VECTOR.signature }))[0], 401);
  assert.equal((await send(GITHUB_VECTOR.body, {}))[0], 401);
  assert.equal((await send(GITHUB_VECTOR.body, { "x-hub-signature-256": "sha256=00" }))[0], 401);
  assert.equal((await call("webhook")).status, 405);

  const push = JSON.stringify({
    ref: "refs/heads/main",
    repository: { full_name: "octocat/Hello-World" },
    sender: { login: "octocat" },
    commits: [{ message: "Grüße 👋" }],
  });
  const headers = { "x-hub-signature-256": sign(push), "x-github-event": "push", "x-github-delivery": "72d3162e" };
  assert.deepEqual(await send(push, headers), [
    200,
    { event: "push", delivery: "72d3162e", summary: "octocat pushed 1 commit to octocat/Hello-World refs/heads/main" },
  ]);
  const form = String(new URLSearchParams({ payload: push }));
  const formHeaders = { "content-type": "application/x-www-form-urlencoded", "x-hub-signature-256": sign(form) };
  assert.equal((await send(form, { ...headers, ...formHeaders }))[0], 200);
  assert.equal((await send(push, { ...headers, "x-github-event": "star" }))[0], 202);
});

test("text-stats counts words and sentences of any script, over HTTP and as an event", async () => {
  await deploy("text-stats");
  const measure = async (body: string | Uint8Array, type = "text/plain"): Promise<TextStats> => {
    const answer = await call("text-stats", { method: "POST", body, headers: { "content-type": type } });
    assert.equal(answer.status, 200, await explain(answer));
    return (await answer.json()) as TextStats;
  };
  const french = await measure("De\u0301ja\u0300 vu? Vu déjà!");
  assert.deepEqual(french, {
    words: 4,
    distinctWords: 2,
    sentences: 2,
    topWords: [
      { word: "déjà", count: 2 },
      { word: "vu", count: 2 },
    ],
    readingTimeSeconds: 1,
  });
  const english = await measure("Dr. Smith paid 3.14 euros. “Don't!” she said.\n\nThe end");
  assert.deepEqual([english.words, english.sentences], [10, 3]);
  assert.equal((await measure("吾輩は猫である。名前はまだ無い。")).sentences, 2);
  assert.equal((await measure("हिन्दी में लिखा। दूसरा वाक्य।")).words, 5);
  assert.deepEqual(
    await measure(Buffer.from("Größe", "latin1"), "text/plain; charset=iso-8859-1"),
    await measure("Größe"),
  );
  assert.equal((await measure("one two three ".repeat(70_000))).words, 210_000);

  const wrong = await call("text-stats", { method: "POST", body: Buffer.from([0xff, 0xfe, 0x41]) });
  assert.equal(wrong.status, 400);
  const { code, stdout, stderr } = await platform.koine(["invoke", "text-stats", "-d", '{"text":"Déjà vu? Vu déjà!"}']);
  assert.equal(code, 0, stderr);
  assert.deepEqual(JSON.parse(stdout), french);
});

test("guestbook keeps entries, escapes them, shows them live and lets only its admin remove them", async () => {
  await setSecret("GUESTBOOK_ADMIN", ADMIN);
  await deploy("guestbook");
  const leaving = new AbortController();
  const events = eventsOf(await call("guestbook/events", { signal: leaving.signal }));
  assert.equal(await events.next(), ": following");

  const entry = { name: "<script>alert(1)</script>", message: `"quotes" & 'more' 🎉` };
  const signed = await call("guestbook/entries", { method: "POST", headers: JSON_TYPE, body: JSON.stringify(entry) });
  assert.equal(signed.status, 201, await explain(signed));
  assert.equal(signed.headers.get("location"), "/fn/guestbook/entries/1");
  const { id, at } = (await signed.json()) as { id: number; at: string };
  assert.equal(await events.next(), `id: 1\nevent: added\ndata: ${JSON.stringify({ id, ...entry, at })}`);

  const form = new URLSearchParams({ name: "Ada", message: "Hello" });
  const posted = await call("guestbook/entries", { method: "POST", body: form, redirect: "manual" });
  assert.deepEqual([posted.status, posted.headers.get("location")], [303, "/fn/guestbook/"]);
  assert.match((await events.next()) ?? "", /^id: 2\n/);

  const page = await (await call("guestbook")).text();
  assert.match(page, /<b>&lt;script&gt;alert\(1\)&lt;\/script&gt;<\/b> &quot;quotes&quot; &amp; &#39;more&#39; 🎉/);
  assert.match(page, /action="\/fn\/guestbook\/entries"/);

  const remove = async (headers: Record<string, string>): Promise<number> =>
    (await call("guestbook/entries/1", { method: "DELETE", headers })).status;
  assert.equal(await remove({}), 401);
  assert.equal(await remove({ "x-admin-token": "guess" }), 401);
  assert.equal(await remove({ "x-admin-token": ADMIN }), 204);
  assert.equal(await remove({ "x-admin-token": ADMIN }), 404);
  assert.equal(await events.next(), 'event: removed\ndata: {"id":1}');
  leaving.abort();
});

test("guestbook serves many at a time from one instance, so that all see one book", async () => {
  const names = Array.from({ length: 40 }, (_, index) => `guest ${index}`);
  const sign = (name: string): Promise<Response> =>
    call("guestbook/entries", {
      method: "POST",
      headers: JSON_TYPE,
      body: JSON.stringify({ name, message: "was here" }),
    });
  for (const answer of await Promise.all(names.map(sign))) assert.equal(answer.status, 201);
  const entries = (await (await call("guestbook/entries")).json()) as { name: string }[];
  const signed = new Set(entries.map(({ name }) => name));
  assert.ok(names.every((name) => signed.has(name)));
});

test("guestbook refuses bad entries, wrong methods and unknown paths", async () => {
  const post = async (body: string): Promise<number> =>
    (await call("guestbook/entries", { method: "POST", headers: JSON_TYPE, body })).status;
  assert.equal(await post("{"), 400);
  assert.equal(await post('{"name":"  ","message":"x"}'), 400);
  assert.equal(await post(JSON.stringify({ name: "x", message: "x".repeat(501) })), 400);
  assert.equal(await post("x".repeat(20_000)), 413);
  const put = await call("guestbook/entries", { method: "PUT" });
  assert.deepEqual([put.status, put.headers.get("allow")], [405, "GET, POST"]);
  assert.equal((await call("guestbook/nothing")).status, 404);
});

interface CsvSummary {
  readonly rows: number;
  readonly badRows: unknown;
  readonly columns: readonly {
    readonly name: string;
    readonly type: string;
    readonly count: number;
    readonly min: unknown;
    readonly max: unknown;
    readonly mean: number | null;
    readonly distinct: number | null;
    readonly topValues: readonly { readonly value: string; readonly count: number }[];
  }[];
}

interface TextStats {
  readonly words: number;
  readonly sentences: number;
}

async function deploy(name: string): Promise<void> {
  const { code, stderr } = await platform.koine(["deploy", join(EXAMPLES, name)]);
  assert.equal(code, 0, `${stderr}\n${platform.output}`);
}

async function setSecret(name: string, value: string): Promise<void> {
  const { code, stderr } = await platform.koine(["secret", "set", name, "-"], { stdin: value });
  assert.equal(code, 0, stderr);
}

function call(path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`${platform.url}/fn/${path}`, { signal: AbortSignal.timeout(60_000), ...init });
}

async function management<Answer>(path: string): Promise<Answer> {
  return (await (await fetch(`${platform.url}/v1/namespaces/default/${path}`)).json()) as Answer;
}

/** The body of an answer that was not expected, for the message. */
async function explain(answer: Response): Promise<string> {
  return answer.ok ? "" : await answer.clone().text();
}

/** POSTs without a length, piece by piece and no faster than they are taken. */
function stream(path: string, pieces: Iterable<Buffer>): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(120_000);
    const outgoing = httpRequest(`${platform.url}${path}`, { method: "POST", signal }, (incoming) => {
      let body = "";
      incoming.setEncoding("utf8").on("data", (text: string) => (body += text));
      incoming.on("end", () => resolve({ status: incoming.statusCode ?? 0, body }));
      incoming.on("error", reject);
    });
    outgoing.on("error", reject);
    Readable.from(pieces).pipe(outgoing);
  });
}

/** A CSV with every difficulty, cut where it hurts: 4,093 bytes is prime, so cuts fall within characters, quotes and line ends. */
function* csvChunks(rows: number): Iterable<Buffer> {
  const cities = ["Łódź", '"København, DK"', "東京"];
  let rest = Buffer.from('\ufeffid,city,temperature,"note"\r\n');
  for (let row = 0; row < rows; row++) {
    const temperature = row % 1_000 === 0 ? "" : String((row % 50) - 20 + 0.5);
    const line = `${row},${cities[row % 3] ?? ""},${temperature},"says ""brr""\r\nand leaves"\r\n`;
    rest = Buffer.concat([rest, Buffer.from(line)]);
    for (; rest.length > 4_093; rest = rest.subarray(4_093)) yield rest.subarray(0, 4_093);
  }
  yield rest;
  yield Buffer.from('short,row\r\n1,Par"is,2,x');
}

/** Width and height of a WebP, from its first chunk. */
function webpSize(bytes: Buffer): { width: number; height: number } {
  assert.equal(bytes.toString("latin1", 0, 4), "RIFF");
  assert.equal(bytes.readUInt32LE(4), bytes.length - 8);
  assert.equal(bytes.toString("latin1", 8, 16), "WEBPVP8 ");
  assert.equal(bytes.toString("hex", 23, 26), "9d012a", "the start code of a key frame");
  return { width: bytes.readUInt16LE(26) & 0x3fff, height: bytes.readUInt16LE(28) & 0x3fff };
}

/** The events of a stream, one after the other. */
function eventsOf(answer: Response): { next(): Promise<string | undefined> } {
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("content-type"), "text/event-stream");
  assert.ok(answer.body !== null);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  return {
    async next() {
      while (!text.includes("\n\n")) {
        const { done, value } = await reader.read();
        if (done) return undefined;
        text += value;
      }
      const [event = "", ...others] = text.split("\n\n");
      text = others.join("\n\n");
      return event;
    },
  };
}
