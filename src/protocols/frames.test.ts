import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { VirtualClock } from "../core/clock.ts";
import { limits } from "../core/limits.ts";
import { FRAME_HEADER_BYTES, LAST, frameType } from "./frame-codec.ts";
import { createFramesProtocol } from "./frames.ts";
import { isInvokesEarly, type Link, type LinkResponder, type Specialisation } from "./protocol.ts";

const specialisation: Specialisation = {
  codePath: "/code",
  handler: "index",
  handlerModel: "auto",
  environment: {},
  function: { namespace: "default", package: "", name: "x", version: 1 },
  memoryBytesMax: 1,
  timeoutMs: 1,
  instanceConcurrency: 1,
  adapters: [{ dialect: "native", model: "web", path: "/koine/handlers/native/nodejs/web.mjs" }],
};

function frame(type: number, stream: number, payload: string | Buffer = "", flags = 0): Buffer {
  const body = Buffer.from(payload);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32LE(body.length, 0);
  header.writeUInt32LE(stream, 4);
  header[8] = type;
  header[9] = flags;
  return Buffer.concat([header, body]);
}

const READY = frame(frameType.ready, 0, '{"protocol":1,"language":"x","version":"1"}');
const SPECIALISED = frame(frameType.specialised, 0, '{"handlerModel":"web","loadMs":1}');
const HEAD = '{"status":200,"headers":[]}';

/** The instance's end of a link, played by the test. */
class Scene {
  readonly link: Link;
  readonly clock = new VirtualClock();
  readonly writes: Buffer[] = [];
  readonly closed: string[] = [];
  readonly logs: string[] = [];
  readonly #channel: Duplex;

  constructor() {
    this.#channel = new Duplex({
      read() {},
      write: (chunk: Buffer, _encoding, callback) => {
        this.writes.push(Buffer.from(chunk));
        callback();
      },
      writev: (chunks, callback) => {
        this.writes.push(Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer)));
        callback();
      },
    });
    this.link = createFramesProtocol({ clock: this.clock }).connect(
      { channel: this.#channel, ended: new Promise(() => {}) },
      {
        log: (id, stream, chunk) => this.logs.push(`${id} ${stream} ${chunk.toString()}`),
        closed: (reason) => this.closed.push(reason),
      },
    );
  }

  static async specialised(): Promise<Scene> {
    const scene = new Scene();
    scene.receive(READY);
    await scene.link.ready(AbortSignal.timeout(1_000));
    const specialised = scene.link.specialise(specialisation, AbortSignal.timeout(1_000));
    scene.receive(SPECIALISED);
    await specialised;
    await turn();
    scene.writes.length = 0;
    return scene;
  }

  receive(...frames: Buffer[]): void {
    this.#channel.emit("data", Buffer.concat(frames));
  }

  invoke(body: Buffer | null = Buffer.alloc(0)): Ends {
    const ends = new Ends();
    const exchange = this.link.invoke(
      {
        id: "an-id",
        call: { kind: "event", contentType: "text/plain" },
        attempt: 1,
        deadlineMs: 0,
        body: body ?? Buffer.alloc(0),
        bodyComplete: body !== null,
      },
      ends,
    );
    ends.write = (chunk) => exchange.write(chunk);
    ends.resume = () => exchange.resume();
    return ends;
  }
}

class Ends implements LinkResponder {
  readonly seen: string[] = [];
  endings = 0;
  accepting = true;
  bytes = 0;
  write: (chunk: Buffer) => boolean = () => true;
  resume: () => void = () => {};

  head(): void {
    this.seen.push("head");
  }
  body(chunk: Buffer): boolean {
    this.bytes += chunk.length;
    return this.accepting;
  }
  drained(): void {
    this.seen.push("drained");
  }
  bodyEnded(): void {
    this.seen.push("bodyEnded");
  }
  succeeded(): void {
    this.#ended("succeeded");
  }
  failed(error: { readonly code: string }): void {
    this.#ended(`failed ${error.code}`);
  }
  lost(): void {
    this.#ended("lost");
  }
  #ended(how: string): void {
    this.endings++;
    this.seen.push(how);
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

for (const [what, frames, reason] of [
  ["a type that only the engine sends", [frame(frameType.invoke, 1)], /a frame of type 2/],
  ["an unknown type", [frame(99, 0)], /a frame of type 99/],
  ["a second READY", [READY], /second READY/],
  ["a second SPECIALISED", [SPECIALISED], /unexpected SPECIALISED/],
  ["a stream that was never begun", [frame(frameType.end, 9)], /never begun/],
  ["an answer on stream 0", [frame(frameType.head, 0, HEAD)], /never begun/],
  ["DATA before HEAD", [frame(frameType.data, 1, "x")], /DATA before HEAD/],
  ["END before HEAD", [frame(frameType.end, 1)], /END before HEAD/],
  ["HEAD twice", [frame(frameType.head, 1, HEAD), frame(frameType.head, 1, HEAD)], /second HEAD/],
  ["HEAD that is no JSON", [frame(frameType.head, 1, "{")], /malformed HEAD/],
  ["HEAD of another shape", [frame(frameType.head, 1, '{"status":200,"headers":["a"]}')], /malformed HEAD/],
  [
    "DATA after the last",
    [frame(frameType.head, 1, HEAD), frame(frameType.data, 1, "", LAST), frame(frameType.data, 1)],
    /after the last/,
  ],
  [
    "more DATA than the window",
    [frame(frameType.head, 1, HEAD), frame(frameType.data, 1, Buffer.alloc(limits.streamWindowBytes + 1))],
    /window/,
  ],
  ["more CREDIT than was used", [frame(frameType.credit, 1, Buffer.from([1, 0, 0, 0]))], /more CREDIT/],
  ["CREDIT of another length", [frame(frameType.credit, 1, "12345")], /malformed CREDIT/],
  [
    "FAILED with a code of the platform's",
    [frame(frameType.failed, 1, '{"code":"out-of-memory","message":"x"}')],
    /malformed FAILED/,
  ],
  ["a LOG without its head", [frame(frameType.log, 1, "x")], /LOG without/],
  ["a LOG of an unknown output", [frame(frameType.log, 1, Buffer.alloc(20, 9))], /unknown output/],
  ["a READY of another protocol", null, /protocol version 2/],
] as const) {
  test(`an instance that breaks the protocol loses its link: ${what}`, async () => {
    const scene = frames === null ? new Scene() : await Scene.specialised();
    const ends = scene.invoke();
    scene.receive(...(frames ?? [frame(frameType.ready, 0, '{"protocol":2}')]));
    await turn();
    assert.equal(scene.closed.length, 1);
    assert.match(scene.closed[0] ?? "", reason);
    assert.equal(ends.seen.at(-1), "lost");
    assert.equal(ends.endings, 1);
  });
}

test("an instance that answers before it has loaded loses its link", async () => {
  const scene = new Scene();
  scene.receive(frame(frameType.ready, 0, '{"protocol":1,"language":"x","version":"1","invokesEarly":true}'));
  await scene.link.ready(AbortSignal.timeout(1_000));
  assert.ok(isInvokesEarly(scene.link));
  const early: Ends[] = [];
  const options = { invoke: () => void early.push(scene.invoke()), loaded: () => assert.fail("it has not loaded") };
  const specialised = scene.link.specialiseEarly(specialisation, options, AbortSignal.timeout(1_000));
  specialised.catch(() => {});
  assert.equal(scene.writes.length, 1);
  scene.receive(frame(frameType.head, 1, HEAD));
  await assert.rejects(specialised);
  assert.match(scene.closed[0] ?? "", /before SPECIALISED/);
  assert.deepEqual(early[0]?.seen, ["lost"]);
});

test("an instance that does not say so gets no invocation before it has loaded", async () => {
  const scene = new Scene();
  scene.receive(READY);
  await scene.link.ready(AbortSignal.timeout(1_000));
  assert.equal(isInvokesEarly(scene.link), false);
});

test("a head that HTTP has no form for fails its invocation only", async () => {
  const scene = await Scene.specialised();
  const bad = scene.invoke();
  const good = scene.invoke();
  scene.receive(
    frame(frameType.head, 1, '{"status":200,"headers":["a","b\\r\\nc: d"]}'),
    frame(frameType.data, 1, "ignored", LAST),
    frame(frameType.end, 1),
    frame(frameType.head, 2, HEAD),
    frame(frameType.end, 2),
  );
  assert.deepEqual(bad.seen, ["failed invalid-response"]);
  assert.deepEqual(good.seen, ["head", "bodyEnded", "succeeded"]);
  assert.deepEqual(scene.closed, []);
});

test("frames for an invocation that ended are ignored; its late output belongs to none", async () => {
  const scene = await Scene.specialised();
  const ends = scene.invoke();
  const log = Buffer.concat([Buffer.from(new Float64Array([5]).buffer), Buffer.from([1]), Buffer.from("late")]);
  scene.receive(
    frame(frameType.head, 1, HEAD),
    frame(frameType.end, 1),
    frame(frameType.data, 1, "x"),
    frame(frameType.log, 1, log),
  );
  assert.deepEqual(ends.seen, ["head", "bodyEnded", "succeeded"]);
  assert.deepEqual(scene.logs, ["null stdout late"]);
  assert.deepEqual(scene.closed, []);
});

test("what is sent in one turn leaves in few writes, without leaving the instance idle until all is there", async () => {
  const scene = await Scene.specialised();
  for (let count = 0; count < 100; count++) scene.invoke(Buffer.from("body"));
  assert.equal(scene.writes.length, 12);
  await turn();
  assert.equal(scene.writes.length, 13);
});

test("the engine sends no more than the window, and goes on with each credit", async () => {
  const scene = await Scene.specialised();
  const ends = scene.invoke(null);
  const sent = async (): Promise<number> => {
    await turn();
    return scene.writes.reduce((sum, chunk) => sum + chunk.length, 0);
  };
  const before = await sent();
  assert.equal(ends.write(Buffer.alloc(limits.streamWindowBytes + 1_000)), false);
  assert.equal(await sent(), before + FRAME_HEADER_BYTES + limits.streamWindowBytes);
  assert.deepEqual(ends.seen, []);
  scene.receive(frame(frameType.credit, 1, Buffer.from(new Uint32Array([1_500]).buffer)));
  assert.equal(await sent(), before + 2 * FRAME_HEADER_BYTES + limits.streamWindowBytes + 1_000);
  assert.deepEqual(ends.seen, ["drained"]);
});

test("credit is given for what was taken, and none while the receiver waits", async () => {
  const scene = await Scene.specialised();
  const ends = scene.invoke();
  await turn();
  scene.writes.length = 0;
  ends.accepting = false;
  scene.receive(frame(frameType.head, 1, HEAD), frame(frameType.data, 1, Buffer.alloc(limits.streamWindowBytes)));
  await turn();
  assert.equal(scene.writes.length, 0);
  ends.resume();
  await turn();
  const credit = frame(frameType.credit, 1, Buffer.from(new Uint32Array([limits.streamWindowBytes]).buffer));
  assert.deepEqual(Buffer.concat(scene.writes), credit);
});

test("a ping that nobody answers is false after its time", async () => {
  const scene = await Scene.specialised();
  const answered = scene.link.ping(500);
  await scene.clock.advance(500);
  assert.equal(await answered, false);
});

test("any bytes at all end every invocation at most once and close the link at most once", async () => {
  let state = 7;
  const random = (below: number): number => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % below;
  const valid = [
    frame(frameType.head, 1, HEAD),
    frame(frameType.data, 1, "body"),
    frame(frameType.data, 2, "body", LAST),
    frame(frameType.head, 2, HEAD),
    frame(frameType.end, 1),
    frame(frameType.failed, 2, '{"code":"handler-failed","message":"m","type":"T"}'),
    frame(frameType.credit, 1, Buffer.from([0, 0, 0, 0])),
    frame(frameType.pong, 0, Buffer.alloc(8)),
    frame(frameType.log, 0, Buffer.concat([Buffer.alloc(8), Buffer.from([1]), Buffer.from("text")])),
  ];
  for (let round = 0; round < 300; round++) {
    const scene = await Scene.specialised();
    const invocations = [scene.invoke(), scene.invoke(null)];
    const bytes = Buffer.concat(Array.from({ length: 1 + random(8) }, () => valid[random(valid.length)] ?? READY));
    for (let flips = random(3); flips > 0; flips--) bytes[random(bytes.length)] = random(256);
    for (let at = 0; at < bytes.length;) {
      const length = 1 + random(40);
      scene.receive(bytes.subarray(at, at + length));
      at += length;
    }
    if (scene.closed.length > 0) assert.ok(invocations.every((ends) => ends.endings === 1));
    scene.link.close();
    assert.ok(invocations.every((ends) => ends.endings === 1));
    assert.ok(scene.closed.length <= 1);
  }
});
