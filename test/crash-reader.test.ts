import assert from "node:assert/strict";
import { test } from "node:test";
import type { FinalWord, Mark, Noted, Told } from "./crash/evidence.ts";
import { judge } from "./crash/reader.ts";

/** The judge of the crash harness must find each kind of broken promise, or its silence would say nothing. */
interface Story {
  readonly notes: readonly (Noted | Mark)[];
  readonly clients: readonly Told[];
  readonly final?: Partial<FinalWord>;
}

const started = (life: number): Mark => ({ kind: "started", life });
const ended = (life: number, how: "killed" | "stopped" = "killed"): Mark => ({ kind: "ended", life, how });

function sent(event: string, more: Partial<Extract<Told, { kind: "sent" }>> = {}): Told {
  const usual = { idempotencyKey: null, delayMs: 0, failures: 0, vain: false, atMs: 1_000 };
  return { kind: "sent", to: "work", event, ...usual, ...more };
}

function accepted(event: string, activation = `a-${event}`, duplicate = false): Told {
  return { kind: "accepted", event, activation, duplicate };
}

function visit(event: string, more: Partial<Noted> = {}, outcome: "end" | "fail" | null = "end"): Noted[] {
  const usual = { at: "work", activation: `a-${event}`, attempt: 1, event, key: null, n: 0, atMs: 2_000 };
  const begin: Noted = { ...usual, ...more, kind: "begin", whole: more.whole ?? true };
  return outcome === null ? [begin] : [begin, { ...usual, ...more, kind: outcome }];
}

function told(subject: string, type = "succeeded", activation = `o-${subject}`): Noted[] {
  return visit(subject, { at: "audit", activation, key: `koine.invocation.${type}` });
}

function letter(id: string, attempts = 3): FinalWord["deadLetters"][number] {
  return { id, name: "work", attempts, reason: "failed 3 times", code: "handler-failed" };
}

function rulesBroken({ notes, clients, final = {} }: Story): readonly string[] {
  const terms = { attemptsMax: 3, clockJumped: false, diskWasFull: false };
  const { violations } = judge({ notes, clients, final: { deadLetters: [], runs: {}, ...final } }, terms);
  return [...new Set(violations.map(({ rule }) => rule))];
}

test("what ran once, what was open at a kill, what failed and was tried again, and what died after its attempts is in order", () => {
  const notes = [
    started(1),
    ...visit("1"),
    ...told("a-1"),
    ...visit("2"),
    ...visit("3", {}, "fail"),
    ...visit("3", { attempt: 2 }),
    ...told("a-3"),
    ended(1),
    started(2),
    ...visit("2", { attempt: 3 }),
    ...told("a-2"),
    ...[1, 2, 3].flatMap((attempt) => visit("4", { attempt }, "fail")),
    ...told("a-4", "failed"),
    ended(2, "stopped"),
  ];
  const clients = [sent("1"), sent("2"), sent("3", { failures: 1 }), sent("4", { failures: 99 })];
  const answers = ["1", "2", "3", "4"].map((event) => accepted(event));
  const final = {
    deadLetters: [letter("a-4")],
    runs: {
      "a-1": { state: "succeeded", queued: false, deadLetter: false },
      "a-4": { state: "failed", queued: false, deadLetter: true },
    },
  };
  assert.deepEqual(rulesBroken({ notes, clients: [...clients, ...answers], final }), []);
});

const stories: Readonly<Record<string, Story>> = {
  "accepted but lost": { notes: [], clients: [sent("1"), accepted("1")] },
  "delivered but never sent": { notes: [...visit("1"), ...told("a-1")], clients: [] },
  "delivered damaged": {
    notes: [...visit("1", { whole: false }), ...told("a-1")],
    clients: [sent("1"), accepted("1")],
  },
  "repeated without right": {
    notes: [started(1), ...visit("1"), ...visit("1", { attempt: 2 }), ...told("a-1"), ended(1)],
    clients: [sent("1"), accepted("1")],
  },
  "run after it was settled": {
    notes: [started(1), ...visit("1"), ...told("a-1"), ended(1), started(2), ...visit("1", { attempt: 2 }), ended(2)],
    clients: [sent("1"), accepted("1")],
  },
  "out of order": {
    notes: [...visit("2", { key: "k", n: 2 }), ...visit("1", { key: "k", n: 1 }), ...told("a-1"), ...told("a-2")],
    clients: [sent("1"), accepted("1"), sent("2"), accepted("2")],
  },
  "one key, several activations": {
    notes: [...visit("1"), ...told("a-1"), ...visit("2"), ...told("a-2")],
    clients: [sent("1", { idempotencyKey: "k" }), accepted("1"), sent("2", { idempotencyKey: "k" }), accepted("2")],
  },
  "before its time": {
    notes: [...visit("1"), ...told("a-1")],
    clients: [sent("1", { delayMs: 1_001 }), accepted("1")],
  },
  "a slot twice, or none": {
    notes: ["1970-01-01T00:00:01.000Z", "1970-01-01T00:00:03.000Z"].flatMap((slot) => visit(slot, { at: "schedule" })),
    clients: [],
  },
  "destination lost or invented": { notes: visit("1"), clients: [sent("1"), accepted("1")] },
  "dead without reason": {
    notes: [...visit("1", {}, "fail"), ...told("a-1", "failed")],
    clients: [sent("1", { failures: 99 }), accepted("1")],
    final: { deadLetters: [letter("a-1", 1)] },
  },
  "final state": {
    notes: [...visit("1"), ...told("a-1")],
    clients: [sent("1"), accepted("1")],
    final: { runs: { "a-1": { state: "queued", queued: false, deadLetter: false } } },
  },
};

for (const [rule, story] of Object.entries(stories)) {
  test(`the reader finds '${rule}', and nothing else`, () => assert.deepEqual(rulesBroken(story), [rule]));
}

test("a number of an attempt that does not grow, a second activation of an event and an outcome told twice are found", () => {
  const clients = [sent("1"), accepted("1")];
  const again = [started(1), ...visit("1"), ended(1), started(2), ...visit("1"), ...told("a-1"), ended(2)];
  assert.deepEqual(rulesBroken({ notes: again, clients }), ["repeated without right"]);
  const twice = [...visit("1"), ...visit("1", { activation: "b" }), ...told("a-1"), ...told("b")];
  assert.deepEqual(rulesBroken({ notes: twice, clients }), ["delivered but never sent"]);
  const toldTwice = [...visit("1"), ...told("a-1"), ...told("a-1", "succeeded", "other")];
  assert.deepEqual(rulesBroken({ notes: toldTwice, clients }), ["delivered but never sent"]);
});
