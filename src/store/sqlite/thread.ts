import { readlinkSync } from "node:fs";
import { setPriority } from "node:os";
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from "node:worker_threads";
import { DatabaseFile } from "./file.ts";
import { answersBytes, Luggage, mapAnswer, mapArguments, unpacking } from "./luggage.ts";
import { CLOSE, toWire, type Message, type Request, type Response, type Started, type ThreadOpening } from "./wire.ts";

/** Calls that share one transaction at most; more would let the first wait too long. */
const TRANSACTION_REQUESTS_MAX = 2_048;
const JOURNAL_NICENESS = 19;
/** How long what may be put off waits for others, in milliseconds. */
const SETTLE_MS = 500;

// This file is what a thread runs, so starting is what importing it is for.
if (parentPort !== null) start(parentPort, workerData as ThreadOpening);

function start(port: MessagePort, opening: ThreadOpening): void {
  let file: DatabaseFile;
  try {
    file = new DatabaseFile(opening);
  } catch (thrown) {
    port.postMessage({ started: false, error: toWire(thrown) } satisfies Started);
    port.close();
    return;
  }
  if (opening.format === "journal") yieldToOthers();
  port.postMessage({ started: true } satisfies Started);
  let settling: NodeJS.Timeout | null = null;
  const settleSoon = (): void => {
    settling ??= setTimeout(() => {
      settling = null;
      file.settle();
    }, SETTLE_MS);
  };
  port.on("message", (first: Message<Request>) => {
    const requests = unpacked(first);
    // While a transaction commits this thread is blocked and messages pile up: together they are the next transaction.
    for (let more = receiveMessageOnPort(port); more !== undefined; more = receiveMessageOnPort(port)) {
      requests.push(...unpacked(more.message));
    }
    const close = requests.find(([, operation]) => operation === CLOSE);
    const calls = requests.filter((request) => request !== close);
    for (let from = 0; from < calls.length; from += TRANSACTION_REQUESTS_MAX) {
      const some = calls.slice(from, from + TRANSACTION_REQUESTS_MAX);
      send(port, some, file.answer(some));
    }
    if (close === undefined) {
      settleSoon();
      return;
    }
    if (settling !== null) clearTimeout(settling);
    file.close();
    port.postMessage([[[close[0], true, null]], null] satisfies Message<Response>);
    port.close();
  });
}

function unpacked([requests, luggage]: Message<Request>): Request[] {
  const unpack = unpacking(luggage);
  return requests.map(([number, operation, args]) => [number, operation, mapArguments(operation, args, unpack)]);
}

function send(port: MessagePort, requests: readonly Request[], responses: readonly Response[]): void {
  const withBytes = new Set(requests.filter(([, operation]) => answersBytes(operation)).map(([number]) => number));
  const luggage = new Luggage();
  const packed = responses.map((response): Response => {
    const [number, ok, value] = response;
    return ok && withBytes.has(number) ? [number, ok, mapAnswer(value, luggage.pack)] : response;
  });
  const bytes = luggage.take();
  port.postMessage([packed, bytes] satisfies Message<Response>, bytes === null ? [] : [bytes.buffer]);
}

/** Nobody waits for the journal: where the system can tell threads apart, it gets less of a busy processor than those who serve. */
function yieldToOthers(): void {
  try {
    // The last part is the thread's own number; elsewhere than on Linux there is no such file.
    setPriority(Number(readlinkSync("/proc/thread-self").split("/").at(-1)), JOURNAL_NICENESS);
  } catch {
    // It serves as well at its full priority.
  }
}
