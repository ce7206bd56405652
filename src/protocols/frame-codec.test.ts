import assert from "node:assert/strict";
import { test } from "node:test";
import { FrameReader, type FrameSink, LAST, Outbox, frameType } from "./frame-codec.ts";

/** A small generator with a seed (mulberry32), so that a failure can be repeated. */
function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const ROUNDS = 300;

/** Writes down what it is handed; DATA is joined per frame. */
class Recorder implements FrameSink {
  readonly frames: string[] = [];
  #parts: Buffer[] = [];

  header(): string | null {
    return null;
  }

  data(header: { type: number; stream: number; flags: number }, piece: Buffer, complete: boolean): string | null {
    this.#parts.push(piece);
    if (complete) this.frame(header, Buffer.concat(this.#parts.splice(0)));
    return null;
  }

  frame({ type, stream, flags }: { type: number; stream: number; flags: number }, payload: Buffer): string | null {
    this.frames.push(`${type} ${stream} ${flags} ${payload.toString("hex")}`);
    return null;
  }
}

function randomFrames(random: (below: number) => number): Buffer {
  const outbox = new Outbox();
  for (let count = random(12); count >= 0; count--) {
    const body = Buffer.alloc(random(4) === 0 ? random(20_000) : random(60), random(256));
    switch (random(4)) {
      case 0:
        outbox.frame(frameType.data, random(2 ** 32), random(2) === 0 ? LAST : 0, body);
        break;
      case 1:
        outbox.frame(frameType.log, random(100), 0, body);
        break;
      case 2:
        outbox.numbers(frameType.credit, random(100), 4, random(2 ** 32));
        break;
      default:
        outbox.headed(
          frameType.invoke,
          random(100),
          LAST,
          { text: "é".repeat(random(40)), rest: Buffer.from("ü") },
          body,
        );
    }
  }
  return Buffer.concat(outbox.take());
}

test("frames come out the same however their bytes were split", () => {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const random = seeded(seed);
    const bytes = randomFrames(random);
    const whole = new Recorder();
    assert.equal(new FrameReader(whole).push(bytes), null);
    const split = new Recorder();
    const reader = new FrameReader(split);
    for (let at = 0; at < bytes.length;) {
      const length = 1 + random(random(3) === 0 ? 5_000 : 9);
      assert.equal(reader.push(bytes.subarray(at, at + length)), null);
      at += length;
    }
    assert.deepEqual(split.frames, whole.frames, `seed ${seed}`);
  }
});

test("any bytes at all are read without an exception, and nothing is read after a violation", () => {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const random = seeded(seed);
    const bytes = randomFrames(random);
    for (let flips = 1 + random(4); flips > 0 && bytes.length > 0; flips--) bytes[random(bytes.length)] = random(256);
    const recorder = new Recorder();
    const reader = new FrameReader(recorder);
    if (reader.push(bytes) !== null) {
      const before = recorder.frames.length;
      assert.equal(reader.push(randomFrames(random)), null);
      assert.equal(recorder.frames.length, before, `seed ${seed}`);
    }
  }
});

test("what breaks a frame's form is said", () => {
  const broken = (bytes: readonly number[]): string | null => new FrameReader(new Recorder()).push(Buffer.from(bytes));
  assert.match(broken([0, 0, 0, 0, 1, 0, 0, 0, 20, 0, 1, 0]) ?? "", /reserved/);
  assert.match(broken([1, 0, 0, 1, 1, 0, 0, 0, 3, 0, 0, 0]) ?? "", /a frame of 16777217 bytes/);
  assert.match(broken([0, 0, 0, 0, 1, 0, 0, 0, 3, 2, 0, 0]) ?? "", /unknown flags/);
  assert.match(broken([0, 0, 0, 0, 1, 0, 0, 0, 20, 1, 0, 0]) ?? "", /flags on a frame of type 20/);
});

test("small frames leave in one piece, and a large payload is not copied", () => {
  const outbox = new Outbox();
  for (let stream = 1; stream <= 100; stream++)
    outbox.headed(frameType.invoke, stream, LAST, { text: "{", rest: Buffer.from("}") }, Buffer.from("small"));
  assert.equal(outbox.take().length, 1);
  const large = Buffer.alloc(100_000);
  outbox.frame(frameType.data, 1, 0, large);
  outbox.numbers(frameType.cancel, 1, 0);
  assert.deepEqual(
    outbox.take().map((piece) => piece === large),
    [false, true, false],
  );
});

test("a text larger than the scratch buffer is framed whole", () => {
  const outbox = new Outbox();
  const recorder = new Recorder();
  outbox.headed(frameType.invoke, 7, LAST, { text: "x".repeat(99_999), rest: Buffer.from("x") }, Buffer.from("y"));
  assert.equal(new FrameReader(recorder).push(Buffer.concat(outbox.take())), null);
  const [frame = ""] = recorder.frames;
  assert.equal(frame, `2 7 1 a0860100${"78".repeat(100_000)}79`);
});
