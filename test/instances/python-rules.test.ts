import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { test } from "node:test";
import { pythonAdapters, spawnPython } from "./python-instance.ts";

const WINDOW_BYTES = 256 * 1024;
const BROKEN_RULES_STATUS = 76;
const [SPECIALISE, INVOKE, DATA, CREDIT, CANCEL, PING, SHUTDOWN] = [1, 2, 3, 4, 5, 6, 7];
const [READY, SPECIALISED, HEAD, END, PONG] = [16, 17, 19, 20, 23];
const LAST = 1;

interface Frame {
  readonly type: number;
  readonly stream: number;
  readonly flags: number;
  readonly payload: Buffer;
}

/** A client that is free to break the rules. */
class RawClient implements AsyncDisposable {
  readonly frames: Frame[] = [];
  readonly exited: Promise<number | string>;
  readonly #process: ChildProcess;
  readonly #channel: Duplex;
  readonly #folder: string;
  #rest: Buffer = Buffer.alloc(0);
  #look = (): void => {};

  private constructor(process: ChildProcess, folder: string) {
    this.#process = process;
    this.#folder = folder;
    this.#channel = process.stdio[3] as Duplex;
    this.exited = new Promise((resolve) => process.once("exit", (code, signal) => resolve(code ?? signal ?? "")));
    this.#channel.on("error", () => {});
    this.#channel.on("data", (chunk: Buffer) => {
      this.#rest = Buffer.concat([this.#rest, chunk]);
      while (this.#rest.length >= 12 && this.#rest.length >= 12 + this.#rest.readUInt32LE(0)) {
        const end = 12 + this.#rest.readUInt32LE(0);
        const [type, flags] = [this.#rest.readUInt8(8), this.#rest.readUInt8(9)];
        this.frames.push({ type, flags, stream: this.#rest.readUInt32LE(4), payload: this.#rest.subarray(12, end) });
        this.#rest = this.#rest.subarray(end);
      }
      this.#look();
    });
  }

  static async start(source: string): Promise<RawClient> {
    const folder = await mkdtemp(join(tmpdir(), "koine-python-"));
    await writeFile(join(folder, "app.py"), source);
    const client = new RawClient(await spawnPython(), folder);
    await client.has((frame) => frame.type === READY);
    return client;
  }

  write(bytes: Buffer): void {
    this.#channel.write(bytes);
  }

  specialise(): Promise<Frame> {
    this.write(specialise(this.#folder));
    return this.has((frame) => frame.type === SPECIALISED);
  }

  has(predicate: (frame: Frame) => boolean): Promise<Frame> {
    return new Promise((resolve) => {
      this.#look = () => {
        const found = this.frames.find(predicate);
        if (found !== undefined) resolve(found);
      };
      this.#look();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.exited;
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function frame(type: number, stream: number, payload: Buffer | string = "", flags = 0, reserved = 0): Buffer {
  const body = Buffer.from(payload);
  const header = Buffer.alloc(12);
  header.writeUInt32LE(body.length, 0);
  header.writeUInt32LE(stream, 4);
  header.writeUInt8(type, 8);
  header.writeUInt8(flags, 9);
  header.writeUInt16LE(reserved, 10);
  return Buffer.concat([header, body]);
}

function specialise(codePath: string): Buffer {
  const specialisation = {
    codePath,
    handler: "app",
    handlerModel: "auto",
    environment: {},
    function: { namespace: "default", package: "", name: "greet", version: 1 },
    memoryBytesMax: 1e8,
    timeoutMs: 30_000,
    instanceConcurrency: 1,
    adapters: pythonAdapters,
  };
  return frame(SPECIALISE, 0, JSON.stringify(specialisation));
}

const head = { id: "i", attempt: 1, deadlineMs: 2e12, kind: "event", contentType: "application/json" };

function invoke(stream: number, body: Buffer | string = "1", flags = LAST): Buffer {
  const text = Buffer.from(JSON.stringify(head));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(text.length);
  return frame(INVOKE, stream, Buffer.concat([size, text, Buffer.from(body)]), flags);
}

const echo = "def handler(event, context):\n    return event\n";

test("a small answer is HEAD, DATA with LAST, END", async () => {
  await using client = await RawClient.start(echo);
  await client.specialise();
  client.write(invoke(7, '{"a":1}'));
  await client.has((one) => one.type === END);
  assert.deepEqual(
    client.frames.slice(2).map((one) => [one.type, one.stream, one.flags, one.payload.toString()]),
    [
      [HEAD, 7, 0, '{"status":200,"headers":["content-type","application/json"]}'],
      [DATA, 7, LAST, '{"a": 1}'],
      [END, 7, 0, ""],
    ],
  );
});

test("frames are understood however they are cut and joined", async () => {
  await using client = await RawClient.start(echo);
  await client.specialise();
  const bytes = Buffer.concat([
    invoke(1),
    invoke(2, "2"),
    frame(PING, 0, "12345678"),
    invoke(3, "3", 0),
    frame(DATA, 3, "4", LAST),
  ]);
  for (const byte of bytes) client.write(Buffer.from([byte]));
  await client.has((one) => one.type === END && one.stream === 3);
  assert.equal(client.frames.find((one) => one.type === PONG)?.payload.toString(), "12345678");
  const bodies = client.frames.filter((one) => one.type === DATA).map((one) => one.payload.toString());
  assert.deepEqual(bodies, ["1", "2", "34"]);
});

test("a body is credited as it is read, and an answer stops at its window until it gets credit", async () => {
  await using client = await RawClient.start("def handler(event, context):\n    return event + event\n");
  await client.specialise();
  const text = `"${"x".repeat(300_000)}"`;
  client.write(invoke(1, text.slice(0, WINDOW_BYTES), 0));
  const credit = await client.has((one) => one.type === CREDIT);
  assert.ok(credit.payload.readUInt32LE(0) > 0);
  client.write(frame(DATA, 1, text.slice(WINDOW_BYTES), LAST));
  const sent = (): number => client.frames.reduce((sum, one) => sum + (one.type === DATA ? one.payload.length : 0), 0);
  await client.has(() => sent() === WINDOW_BYTES);
  client.write(frame(PING, 0, "12345678"));
  await client.has((one) => one.type === PONG);
  assert.equal(sent(), WINDOW_BYTES);
  client.write(frame(CREDIT, 1, Buffer.from([0, 0, 16, 0])));
  await client.has((one) => one.type === END);
  assert.equal(sent(), 600_002);
});

test("frames for streams that ended are ignored", async () => {
  await using client = await RawClient.start(echo);
  await client.specialise();
  client.write(invoke(1));
  await client.has((one) => one.type === END);
  client.write(Buffer.concat([frame(DATA, 1, "x"), frame(CREDIT, 1, "\0\0\0\0"), frame(CANCEL, 1), invoke(2)]));
  await client.has((one) => one.type === END && one.stream === 2);
});

test("whatever breaks the rules ends the process", async () => {
  const long = frame(PING, 0, "12345678");
  long.writeUInt32LE(16 * 1024 * 1024 + 1, 0);
  const violations: Record<string, Buffer> = {
    "unknown type": frame(99, 0),
    "type of the instance": frame(READY ?? 0, 0, "{}"),
    "too long": long,
    "reserved bytes": frame(PING, 0, "12345678", 0, 1),
    "unknown flag": frame(DATA, 1, "", 2),
    "LAST on a ping": frame(PING, 0, "12345678", LAST),
    "ping on a stream": frame(PING, 1, "12345678"),
    "short ping": frame(PING, 0, "1"),
    "data on stream 0": frame(DATA, 0, "x"),
    "long credit": frame(CREDIT, 1, "12345"),
    "cancel with a payload": frame(CANCEL, 1, "x"),
    "shutdown with a payload": frame(SHUTDOWN, 0, "x"),
    "second specialisation": specialise("/tmp"),
    "JSON that is none": frame(INVOKE, 1, Buffer.concat([Buffer.from([3, 0, 0, 0]), Buffer.from("{a}")]), LAST),
    "head that is not there": frame(INVOKE, 1, Buffer.from([200, 0, 0, 0]), LAST),
    "head without an id": frame(INVOKE, 1, Buffer.concat([Buffer.from([2, 0, 0, 0]), Buffer.from("{}")]), LAST),
    "more than the window": Buffer.concat([invoke(1, "", 0), frame(DATA, 1, "x".repeat(WINDOW_BYTES + 1))]),
    "data after the last": Buffer.concat([invoke(1), frame(DATA, 1, "x")]),
    "one stream twice at a time": Buffer.concat([invoke(1, "", 0), invoke(1)]),
  };
  for (const [what, bytes] of Object.entries(violations)) {
    await using client = await RawClient.start(echo);
    await client.specialise();
    client.write(bytes);
    assert.equal(await client.exited, BROKEN_RULES_STATUS, what);
  }
});

test("random bytes never hang or confuse the process: it goes on by the rules or ends", async () => {
  let seed = 20_240_607;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return seed % below;
  };
  for (let round = 0; round < 20; round++) {
    await using client = await RawClient.start(echo);
    await client.specialise();
    const pieces = Array.from({ length: 20 }, (_, at) => {
      const good = [invoke(at + 1), frame(PING, 0, "12345678"), frame(CREDIT, at, "abcd"), frame(CANCEL, at + 1)];
      const piece = Buffer.from(good[random(good.length)] ?? []);
      if (random(4) === 0) piece[random(piece.length)] = random(256);
      return piece;
    });
    client.write(Buffer.concat(pieces));
    client.write(frame(PING, 0, "theend!!"));
    client.write(frame(SHUTDOWN, 0));
    // A changed length may make it wait for the rest of a frame: an end of the stream is then what ends it.
    client.write(Buffer.alloc(17 * 1024 * 1024));
    const status = await client.exited;
    assert.ok(status === 0 || status === BROKEN_RULES_STATUS, `round ${round}: ${status}`);
  }
});
