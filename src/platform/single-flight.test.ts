import assert from "node:assert/strict";
import { test } from "node:test";
import { SingleFlight } from "./single-flight.ts";

const forever = new AbortController().signal;

test("callers with one key share the work, others do not", async () => {
  const flights = new SingleFlight<string>();
  let begun = 0;
  const start = async (): Promise<string> => `result ${++begun}`;
  const results = await Promise.all([
    flights.run("a", forever, start),
    flights.run("a", forever, start),
    flights.run("b", forever, start),
  ]);
  assert.deepEqual(results, ["result 1", "result 1", "result 2"]);
  assert.equal(await flights.run("a", forever, start), "result 3");
});

test("a failure reaches all who wait, and the next caller begins anew", async () => {
  const flights = new SingleFlight<string>();
  const failing = (): Promise<string> => Promise.reject(new Error("no"));
  await Promise.all([1, 2].map(() => assert.rejects(flights.run("a", forever, failing), /no/)));
  assert.equal(await flights.run("a", forever, async () => "yes"), "yes");
});

test("the one who began may leave without harm to those who joined", async () => {
  const flights = new SingleFlight<string>();
  const done = Promise.withResolvers<string>();
  const beginner = new AbortController();
  let aborted = false;
  const first = flights.run("a", beginner.signal, (signal) => {
    signal.addEventListener("abort", () => (aborted = true));
    return done.promise;
  });
  const second = flights.run("a", forever, () => done.promise);
  beginner.abort();
  await assert.rejects(first, { name: "AbortError" });
  assert.equal(aborted, false);
  done.resolve("result");
  assert.equal(await second, "result");
});

test("work for which nobody waits is aborted and not joined any more", async () => {
  const flights = new SingleFlight<string>();
  const only = new AbortController();
  const aborted = Promise.withResolvers<void>();
  const first = flights.run("a", only.signal, (signal) => {
    signal.addEventListener("abort", () => aborted.resolve());
    return new Promise(() => {});
  });
  only.abort();
  await assert.rejects(first, { name: "AbortError" });
  await aborted.promise;
  assert.equal(await flights.run("a", forever, async () => "new"), "new");
});

test("closing aborts what runs", async () => {
  const flights = new SingleFlight<string>();
  const running = flights.run("a", forever, (signal) => {
    return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
  });
  await Promise.all([assert.rejects(running, /stopping/), flights.close(new Error("stopping"))]);
  assert.deepEqual(flights.keys(), []);
});
