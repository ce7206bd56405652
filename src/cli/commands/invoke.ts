import { type Command, Option } from "commander";
import { PRIORITIES } from "../../core/enqueue.ts";
import { parseFunctionRef } from "../../core/function.ts";
import type { Cli, Session } from "../command.ts";
import { collect, defineCommand, withSession } from "../command.ts";
import { usageFailure } from "../failure.ts";
import { readInvocationBody } from "../invocation-body.ts";
import { invokeFunction } from "../invoking.ts";
import { parseDuration } from "../quantity.ts";

interface InvokeFlags {
  readonly data?: string;
  readonly async?: boolean;
  readonly method?: string;
  readonly header?: readonly string[];
  readonly path?: string;
  readonly timeout?: string;
  readonly delay?: string;
  readonly at?: string;
  readonly idempotencyKey?: string;
  readonly orderingKey?: string;
  readonly priority?: string;
  readonly fail?: boolean;
}

export function addInvoke(parent: Command, cli: Cli): void {
  defineCommand(parent, "invoke <name>", {
    summary: "Call a function",
    detail:
      "NAME may be NAME:VERSION or NAME:ALIAS. The answer goes to stdout; id, status, duration, cold or warm go to stderr.\n" +
      "The function gets the data as its event; with -X, -H or --path it is called over HTTP instead.",
    examples: [
      `koine invoke hello -d '{"name":"you"}'`,
      "koine invoke thumbnail --path '/?width=200' -d @photo.jpg > small.webp",
      "koine invoke hello:3 -X POST -H 'content-type: text/plain' -d - < letter.txt",
      "koine invoke report --async -d @order.json",
      "koine invoke report --async --delay 10m --idempotency-key order-17 -d @order.json",
    ],
  })
    .option("-d, --data <data>", "body: text, @file, or - for stdin")
    .option("--async", "do not wait: the platform runs it and keeps the answer; prints the invocation's id")
    .option("--delay <duration>", "with --async: not before this time has passed: 30s, 2h")
    .option("--at <time>", "with --async: not before this time: 2030-01-31T12:00:00Z")
    .option("--idempotency-key <key>", "with --async: accepted once within a day for the same key")
    .option("--ordering-key <key>", "with --async: one after the other for the same key, in order")
    .addOption(new Option("--priority <priority>", "with --async: which goes first").choices(PRIORITIES))
    .option("-X, --method <method>", "HTTP method")
    .option("-H, --header <header>", "HTTP header 'name: value'; may be repeated", collect)
    .option("--path <path>", "path and query below the function's address")
    .option("--timeout <duration>", "longest wait for the whole answer: 500ms, 30s")
    .option("--fail", "exit with 6 when the function answers with HTTP status 400 or more")
    .action(withSession(cli, invoke));
}

async function invoke(session: Session, name: string, flags: InvokeFlags): Promise<void> {
  const ref = parseFunctionRef(name, session.settings.namespace);
  const headers = parseHeaders(flags.header ?? []);
  const overHttp = flags.method !== undefined || flags.header !== undefined || flags.path !== undefined;
  const method = flags.method?.toUpperCase() ?? (flags.data === undefined ? "GET" : "POST");
  if (!/^[A-Z]+$/.test(method)) throw usageFailure(`'${flags.method}' is not an HTTP method`, "Write -X POST.");
  const body = await readInvocationBody(session.io, flags.data, { typeIsSaid: headers["content-type"] !== undefined });
  await invokeFunction(session, {
    ref,
    http: overHttp ? { method, path: requestPath(flags.path ?? "") } : null,
    headers: { ...headers, ...queueHeaders(flags, session.io.clock.nowMs()) },
    body,
    async: flags.async === true,
    failOnStatus: flags.fail === true,
    ...(flags.timeout === undefined ? {} : { timeoutMs: parseDuration(flags.timeout) }),
  });
}

/** How the platform is to handle what it runs later. */
function queueHeaders(flags: InvokeFlags, nowMs: number): Readonly<Record<string, string>> {
  const { delay, at, idempotencyKey, orderingKey, priority } = flags;
  const headers = {
    ...(delay === undefined ? {} : { "koine-delay": `${parseDuration(delay)}ms` }),
    ...(at === undefined ? {} : { "koine-at": timeOf(at, nowMs) }),
    ...(idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey }),
    ...(orderingKey === undefined ? {} : { "koine-ordering-key": orderingKey }),
    ...(priority === undefined ? {} : { "koine-priority": priority }),
  };
  if (flags.async !== true && Object.keys(headers).length > 0)
    throw usageFailure("--delay, --at, --idempotency-key, --ordering-key and --priority need --async", "Add --async.");
  if (delay !== undefined && at !== undefined) throw usageFailure("--delay and --at exclude each other", "Use one.");
  return headers;
}

function timeOf(text: string, nowMs: number): string {
  const atMs = Date.parse(text);
  if (Number.isNaN(atMs)) throw usageFailure(`'${text}' is not a time`, "Write --at 2030-01-31T12:00:00Z.");
  return new Date(Math.max(atMs, nowMs)).toISOString();
}

/** Headers by lower-case name; those given several times keep all their values. */
function parseHeaders(given: readonly string[]): Readonly<Record<string, string | string[]>> {
  const headers: Record<string, string | string[]> = {};
  for (const line of given) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).trim().toLowerCase();
    if (colon < 1 || !/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)) {
      throw usageFailure(`'${line}' is not a header`, "Write -H 'name: value'.");
    }
    const value = line.slice(colon + 1).trim();
    const before = headers[name];
    headers[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value];
  }
  return headers;
}

/** The path as it may stand in a request line: spaces and what is not ASCII are escaped, escapes stay. */
function requestPath(path: string): string {
  const escaped = path.replaceAll(/[^\x21-\x7e]+/g, encodeURIComponent);
  return escaped === "" || /^[/?]/.test(escaped) ? escaped : `/${escaped}`;
}
