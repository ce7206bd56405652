import assert from "node:assert/strict";
import { test } from "node:test";
import type { EnqueueOptions } from "../../core/enqueue.ts";
import { RequestHeaders } from "../request-headers.ts";
import { enqueueOptionsOf } from "./enqueue-options.ts";

const T0 = 1_700_000_000_000;
const parse = (...raw: readonly string[]): EnqueueOptions => enqueueOptionsOf(new RequestHeaders(raw), T0);

test("headers say when, in which order and how often work is done", () => {
  assert.deepEqual(parse("Host", "x"), {});
  assert.deepEqual(
    parse("Idempotency-Key", "a", "Koine-Ordering-Key", "b", "Koine-Priority", "High", "Koine-Retries", "0"),
    {
      idempotencyKey: "a",
      orderingKey: "b",
      priority: "high",
      retry: { attemptsMax: 1 },
    },
  );
});

test("a delay is seconds or has a unit, a time is RFC 3339 or milliseconds", () => {
  const due = (name: string, value: string): number | undefined => parse(name, value).dueAtMs;
  assert.deepEqual(
    ["30", "1.5s", "250ms", "2m", "1h", "1d"].map((text) => (due("Koine-Delay", text) ?? 0) - T0),
    [30_000, 1_500, 250, 120_000, 3_600_000, 86_400_000],
  );
  assert.equal(due("Koine-At", "2030-01-31T12:00:00Z"), Date.UTC(2030, 0, 31, 12));
  assert.equal(due("Koine-At", "1900000000000"), 1_900_000_000_000);
});

test("what cannot be understood is refused", () => {
  const wrong: readonly (readonly string[])[] = [
    ["Koine-Delay", "soon"],
    ["Koine-Delay", "-5"],
    ["Koine-Delay", "5 weeks"],
    ["Koine-At", "tomorrow"],
    ["Koine-Delay", "1", "Koine-At", "2030-01-31T12:00:00Z"],
    ["Koine-Priority", "top"],
    ["Koine-Retries", "many"],
    ["Koine-Retries", "101"],
  ];
  for (const raw of wrong) assert.throws(() => parse(...raw), { code: "invalid-request" }, raw.join(" "));
});
