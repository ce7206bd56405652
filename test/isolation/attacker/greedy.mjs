// Takes all it can get of one thing, by the last part of the path.
import { spawn, spawnSync } from "node:child_process";
import { openSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

const MIB = 1024 * 1024;

const ways = {
  /** Ends when a fork is refused. */
  forks() {
    const { status } = spawnSync("/bin/sh", ["-c", "i=0; while [ $i -lt 400 ]; do sleep 20 & i=$((i+1)); done"], {
      stdio: "ignore",
    });
    if (status !== 0) process.exit(1);
    return "400 processes";
  },

  /** Each has two more, until the limit; nobody is left to say so. */
  async bomb() {
    spawn("/bin/sh", ["-c", "b() { b | b & }; b; sleep 60"], { stdio: "ignore" });
    await delay(60_000);
  },

  memory() {
    const kept = [];
    for (;;) kept.push(Buffer.alloc(8 * MIB, 1));
  },

  /** More than its function may have, and no more than a machine can bear. */
  someMemory() {
    const kept = Array.from({ length: 24 }, () => Buffer.alloc(8 * MIB, 1));
    return `${kept.length * 8} MiB`;
  },

  disk: () => fill("/tmp/filled", 4 * 1024),
  sharedMemory: () => fill("/dev/shm/filled", 1024),

  descriptors() {
    for (let count = 0; ; count++) {
      try {
        openSync("/dev/null", "r");
      } catch (thrown) {
        return `${thrown.code} ${count}`;
      }
    }
  },

  async output() {
    for (let count = 0; count < 24; count++) {
      process.stdout.write("x".repeat(1_023).concat("\n").repeat(1_024));
      await delay(1);
    }
    return "printed";
  },

  spin() {
    for (;;);
  },

  hugeAnswer: () =>
    new ReadableStream({
      pull(controller) {
        this.left = (this.left ?? 96) - 1;
        if (this.left < 0) controller.close();
        else controller.enqueue(new Uint8Array(MIB));
      },
    }),

  slowAnswer: () =>
    new ReadableStream({
      async pull(controller) {
        await delay(50);
        controller.enqueue(new Uint8Array([46]));
      },
    }),
};

/** Says at how many MiB it was stopped, and by what. */
function fill(path, mibMax) {
  const file = openSync(path, "w");
  const block = Buffer.alloc(MIB, 1);
  for (let count = 0; count < mibMax; count++) {
    try {
      writeSync(file, block);
    } catch (thrown) {
      return `${thrown.code} ${count}`;
    }
  }
  return "not stopped";
}

export default async function greedy(request) {
  return new Response(await ways[new URL(request.url).pathname.split("/").at(-1)]());
}
