import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { limits } from "../../src/core/limits.ts";
import { FRAME_HEADER_BYTES, frameType, LAST } from "../../src/protocols/frame-codec.ts";
import { type Answer, call, deploy, errorOf, send, tryDeploy } from "../system/api.ts";
import { type RunningPlatform, startPlatform } from "../system/platform.ts";
import { compileAttack, deployAttackers, invoke } from "./stage.ts";

/** What code can do with the channel of its own instance: end its own calls, and nothing else. */
let platform: RunningPlatform;
let folder: string;

const MIB = 1024 * 1024;
const forger = readFileSync(join(import.meta.dirname, "attacker/forger.mjs"), "utf8");
const NEIGHBOUR = `export default async (request) => {
  const { word, ms } = await request.json();
  await new Promise((resolve) => setTimeout(resolve, ms));
  return new Response(word);
};`;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "koine-forged-"));
  platform = await startPlatform({ sandbox: "process" });
  await deploy(platform, "neighbour", NEIGHBOUR);
  await deploy(platform, "forger", { "index.mjs": forger }, { spec: { timeoutMs: 1_500 } });
  await deployAttackers(platform, compileAttack(folder));
});
after(async () => {
  await platform?.stop();
  rmSync(folder, { recursive: true, force: true });
});

function frame(type: number, stream: number, payload: string | Buffer = "", { flags = 0 } = {}): Buffer {
  const body = Buffer.from(payload);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32LE(body.length, 0);
  header.writeUInt32LE(stream, 4);
  header[8] = type;
  header[9] = flags;
  return Buffer.concat([header, body]);
}

const HEAD = '{"status":200,"headers":["x-forged","yes"]}';
const log = (text: string): Buffer =>
  frame(frameType.log, 0, Buffer.concat([Buffer.alloc(8), Buffer.from([1]), Buffer.from(text)]));

interface Forgery {
  readonly pieces: readonly Buffer[];
  readonly again?: number;
  readonly answers?: boolean;
}

function forge({ pieces, ...rest }: Forgery): Promise<Answer> {
  const body = JSON.stringify({ pieces: pieces.map((piece) => piece.toString("base64")), ...rest });
  return call(platform, "forger", { method: "POST", body });
}

/** Calls of the neighbour while something happens, all of which must be answered with their own words. */
async function besideNeighbours<Result>(what: Promise<Result>): Promise<Result> {
  const calls = Array.from({ length: 8 }, async (_, index) => {
    const word = `word ${index}`;
    const answer = await call(platform, "neighbour", {
      method: "POST",
      body: JSON.stringify({ word, ms: index * 20 }),
    });
    assert.deepEqual([answer.status, answer.text, answer.headers["x-forged"]], [200, word, undefined]);
  });
  const result = await what;
  await Promise.all(calls);
  return result;
}

test("answers on streams of any number reach no call of another function", async () => {
  const pieces = Array.from({ length: 64 }, (_, stream) =>
    Buffer.concat([
      frame(frameType.head, stream, HEAD),
      frame(frameType.data, stream, "forged", { flags: LAST }),
      frame(frameType.end, stream),
    ]),
  );
  for (let round = 0; round < 4; round++) {
    const answer = await besideNeighbours(forge({ pieces: pieces.slice(round), answers: false }));
    // Its own call it may answer as it likes: that is what it is for.
    assert.ok(answer.status === 502 || answer.text === "forged", answer.text);
  }
});

test("an instance can forge the answer of its own call only, which succeeds", async () => {
  const pieces = [
    frame(frameType.head, 1, HEAD),
    frame(frameType.data, 1, "forged", { flags: LAST }),
    frame(frameType.end, 1),
  ];
  await deploy(platform, "own", { "index.mjs": forger }, { spec: { timeoutMs: 1_500 } });
  const body = JSON.stringify({ pieces: pieces.map((piece) => piece.toString("base64")), answers: false });
  const answer = await besideNeighbours(call(platform, "own", { method: "POST", body }));
  assert.deepEqual([answer.status, answer.text, answer.headers["x-forged"]], [200, "forged", "yes"]);
});

test("arbitrary and mutated frames end their own instance at most, whatever they are", async () => {
  let state = 11;
  const random = (below: number): number => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % below;
  const valid = [
    frame(frameType.ready, 0, '{"protocol":1,"language":"x","version":"1"}'),
    frame(frameType.specialised, 0, '{"handlerModel":"web","loadMs":1}'),
    frame(frameType.head, 1, HEAD),
    frame(frameType.data, 1, "body"),
    frame(frameType.end, 1),
    frame(frameType.failed, 1, '{"code":"handler-failed","message":"m","type":"T"}'),
    frame(frameType.loadFailed, 0, '{"code":"handler-load-failed","message":"m"}'),
    frame(frameType.credit, 1, Buffer.from([255, 255, 255, 255])),
    frame(frameType.pong, 0, Buffer.alloc(8)),
    frame(frameType.codeCache, 0, Buffer.from([1, 0, 65, 66])),
    log("text"),
  ];
  for (let round = 0; round < 24; round++) {
    const pieces = Array.from({ length: 1 + random(6) }, () => {
      const bytes = Buffer.from(valid[random(valid.length)] ?? log("x"));
      for (let flips = random(4); flips > 0; flips--) bytes[random(bytes.length)] = random(256);
      return bytes.subarray(0, bytes.length - (random(4) === 0 ? random(bytes.length) : 0));
    });
    const answer = await besideNeighbours(forge({ pieces }));
    if (answer.status === 502)
      assert.match(errorOf(answer).code, /function-exited|invalid-response|handler-failed/, answer.text);
    else assert.ok([200, 504].includes(answer.status), `round ${round}: ${answer.status} ${answer.text}`);
  }
});

test("a frame that is too large is refused when its length is seen, and one that never ends holds nobody up", async () => {
  const tooLarge = Buffer.alloc(FRAME_HEADER_BYTES);
  tooLarge.writeUInt32LE(limits.frameBytesMax + 1, 0);
  tooLarge[8] = frameType.log;
  const refused = await besideNeighbours(forge({ pieces: [tooLarge], answers: false }));
  assert.equal(refused.status, 502);
  errorOf(refused, "function-exited");
  const unfinished = Buffer.from(tooLarge);
  unfinished.writeUInt32LE(limits.frameBytesMax, 0);
  const late = await besideNeighbours(forge({ pieces: [unfinished, Buffer.alloc(MIB)] }));
  assert.ok([502, 504].includes(late.status), `${late.status}`);
});

test("a flood of frames is read without being kept", async () => {
  const before = residentBytes();
  for (const piece of [log("x".repeat(32 * 1024)), frame(frameType.pong, 0, Buffer.alloc(8))]) {
    const many = Buffer.concat(Array.from({ length: Math.ceil(MIB / piece.length) }, () => piece));
    const answer = await besideNeighbours(forge({ pieces: [many], again: 64 }));
    assert.ok([200, 504].includes(answer.status), `${answer.status} ${answer.text}`);
  }
  assert.ok(residentBytes() - before < 192 * MIB, `${(residentBytes() - before) / MIB} MiB more`);
});

test("files that are sent along over the channel do not stay open in the platform", async () => {
  const before = readdirSync(`/proc/${platform.pid}/fd`).length;
  for (let round = 0; round < 4; round++)
    assert.ok(
      "took" in ((await invoke(platform, "attacker-python", { attack: "descriptors", args: [200] })) as object),
    );
  await besideNeighbours(Promise.resolve());
  const more = readdirSync(`/proc/${platform.pid}/fd`).length - before;
  assert.ok(more < 200, `${more} more files are open`);
});

test("compiled code that would be kept elsewhere than in its cache is refused with the deploy", async () => {
  for (const path of ["kept", "../../forged-cache", "/tmp/forged-cache", "a/../../forged-cache"]) {
    const name = Buffer.alloc(2);
    name.writeUInt16LE(path.length);
    const forged = frame(frameType.codeCache, 0, Buffer.concat([name, Buffer.from(path), Buffer.from("forged")]));
    const source = `import { writeSync } from "node:fs";
      writeSync(3, Buffer.from("${forged.toString("base64")}", "base64"));
      export default () => new Response("");`;
    const answer = await tryDeploy(platform, "cache", source);
    if (path === "kept") assert.ok(answer.status < 300, answer.text);
    else errorOf(answer, "handler-load-failed");
  }
  const kept = readdirSync(platform.dataDirectory, { recursive: true, encoding: "utf8" });
  assert.deepEqual(
    kept.filter((path) => path.includes("forged-cache")),
    [],
  );
});

test("after all that the platform is well", async () => {
  assert.equal((await send(platform, "/readyz")).status, 200);
  await besideNeighbours(Promise.resolve());
});

function residentBytes(): number {
  const [, kib = "0"] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${platform.pid}/status`, "utf8")) ?? [];
  return Number(kib) * 1024;
}
