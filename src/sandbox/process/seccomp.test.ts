import assert from "node:assert/strict";
import { test } from "node:test";
import { filterArchitecture, seccompFilter } from "./seccomp.ts";

const ALLOWED = 0x7fff0000;
const KILLED = 0x80000000;
const refusedWith = (errno: number): number => 0x00050000 + errno;
const EPERM = 1;
const ENOSYS = 38;
const X64 = 0xc000003e;
const ARM64 = 0xc00000b7;

/** Runs the program as the kernel would. */
function judge(
  program: Buffer,
  call: { readonly architecture: number; readonly number: number; readonly args?: readonly number[] },
): number {
  const memory = Buffer.alloc(64);
  memory.writeUInt32LE(call.number, 0);
  memory.writeUInt32LE(call.architecture, 4);
  for (const [index, value] of (call.args ?? []).entries()) memory.writeUInt32LE(value, 16 + index * 8);
  let accumulator = 0;
  for (let at = 0; at < program.length / 8; at++) {
    const code = program.readUInt16LE(at * 8);
    const operand = program.readUInt32LE(at * 8 + 4);
    if (code === 0x20) accumulator = memory.readUInt32LE(operand);
    else if (code === 0x54) accumulator = (accumulator & operand) >>> 0;
    else if (code === 0x06) return operand;
    else {
      const holds =
        code === 0x15
          ? accumulator === operand
          : code === 0x35
            ? accumulator >= operand
            : (accumulator & operand) !== 0;
      at += program.readUInt8(at * 8 + (holds ? 2 : 3));
    }
  }
  throw new Error("the program ran past its end");
}

const x64 = seccompFilter("x64");
const arm64 = seccompFilter("arm64");

test("ordinary calls pass", () => {
  for (const number of [0, 1, 9, 59, 202, 231, 257, 334, 424, 439]) {
    assert.equal(judge(x64, { architecture: X64, number }), ALLOWED, `call ${number}`);
  }
  assert.equal(judge(arm64, { architecture: ARM64, number: 63 }), ALLOWED);
});

test("mounting, tracing, namespaces, bpf, keys and io_uring are refused on both architectures", () => {
  for (const number of [165, 101, 272, 308, 321, 250, 425, 323]) {
    assert.equal(judge(x64, { architecture: X64, number }), refusedWith(EPERM), `call ${number}`);
  }
  for (const number of [40, 117, 97, 268, 280, 219, 425, 282]) {
    assert.equal(judge(arm64, { architecture: ARM64, number }), refusedWith(EPERM), `call ${number}`);
  }
});

test("a thread and a child may be made, a namespace may not", () => {
  const THREAD = 0x003d0f00;
  for (const [program, architecture, number] of [[x64, X64, 56] as const, [arm64, ARM64, 220] as const]) {
    assert.equal(judge(program, { architecture, number, args: [THREAD] }), ALLOWED);
    for (const flag of [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]) {
      assert.equal(
        judge(program, { architecture, number, args: [THREAD | flag] }),
        refusedWith(EPERM),
        flag.toString(16),
      );
    }
  }
});

test("calls whose arguments cannot be seen, or that are newer than the filter, are unknown", () => {
  for (const number of [435, 470, 1000])
    assert.equal(judge(x64, { architecture: X64, number }), refusedWith(ENOSYS), `call ${number}`);
});

test("a terminal cannot be typed into, other controls pass", () => {
  assert.equal(judge(x64, { architecture: X64, number: 16, args: [0, 0x5412] }), refusedWith(EPERM));
  assert.equal(judge(x64, { architecture: X64, number: 16, args: [0, 0x5413] }), ALLOWED);
});

test("sockets are those of the machine itself and of the internet, of no other family and never raw", () => {
  const EAFNOSUPPORT = 97;
  const [STREAM, DATAGRAM, RAW, NONBLOCKING] = [1, 2, 3, 0o2004000];
  for (const [program, architecture, number] of [[x64, X64, 41] as const, [arm64, ARM64, 198] as const]) {
    const answer = (...args: number[]): number => judge(program, { architecture, number, args });
    for (const family of [1, 2, 10]) assert.equal(answer(family, STREAM | NONBLOCKING), ALLOWED, String(family));
    assert.equal(answer(2, DATAGRAM), ALLOWED);
    for (const family of [2, 10]) assert.equal(answer(family, RAW | NONBLOCKING, 255), refusedWith(EPERM));
    assert.equal(answer(16, RAW, 0), ALLOWED, "reading interfaces");
    assert.equal(answer(16, RAW, 12), refusedWith(EAFNOSUPPORT), "netfilter");
    // Packets, ciphers, the hypervisor, Bluetooth, and one that is not known yet
    for (const family of [17, 38, 40, 31, 99]) assert.equal(answer(family, STREAM), refusedWith(EAFNOSUPPORT));
  }
});

test("a program may ask for its personality and not change it", () => {
  assert.equal(judge(x64, { architecture: X64, number: 135, args: [0xffffffff] }), ALLOWED);
  assert.equal(judge(x64, { architecture: X64, number: 135, args: [0x0040000] }), refusedWith(EPERM));
});

test("a call by another architecture's numbers ends the process", () => {
  assert.equal(judge(x64, { architecture: 0x40000003, number: 1 }), KILLED);
  assert.equal(judge(x64, { architecture: X64, number: 0x40000001 }), KILLED);
  assert.equal(judge(arm64, { architecture: X64, number: 1 }), KILLED);
});

test("only architectures with a table have a filter", () => {
  assert.deepEqual(["x64", "arm64", "riscv64"].map(filterArchitecture), ["x64", "arm64", null]);
});
