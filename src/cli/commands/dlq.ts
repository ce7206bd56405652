import type { Command } from "commander";
import type {
  AttemptView,
  DeadLetterDetailView,
  DeadLettersPurged,
  DeadLettersReplayed,
  DeadLetterView,
} from "../../core/api.ts";
import { isId } from "../../core/ids.ts";
import { limits } from "../../core/limits.ts";
import { functionNamed, inPackage, namespacePath } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { CliFailure, usageFailure } from "../failure.ts";
import { canAsk, confirm } from "../prompt.ts";
import { formatAgo, formatDuration, parseCount, parseSince, plural } from "../quantity.ts";
import type { Paint } from "../terminal.ts";

const LIMIT_DEFAULT = 20;
const RATE_DEFAULT = 100;
/** Seconds of replayed work that one call hands over. */
const SECONDS_PER_CALL = 10;
const FULL_WAIT_MS = 10_000;

interface ChoiceFlags {
  readonly code?: string;
  readonly since?: string;
  readonly before?: string;
  readonly all?: boolean;
}

/** Adds `dlq list|get|replay|purge`: asynchronous work that ran out of attempts. */
export function addDlq(parent: Command, cli: Cli): void {
  const dlq = defineCommand(parent, "dlq", {
    summary: "Look at asynchronous work that failed for good, and run it again",
    detail: "A dead letter keeps the event, its attempts and the last error until it is replayed or purged.",
    examples: ["koine dlq list hello", "koine dlq replay hello --code handler-failed"],
  });
  addChoice(
    defineCommand(dlq, "list [name]", {
      summary: "List dead letters, the oldest accepted first",
      examples: ["koine dlq list", "koine dlq list hello --since 1h --code function-timed-out"],
    }).alias("ls"),
  )
    .option("--limit <count>", `at most so many (default ${LIMIT_DEFAULT})`)
    .action(withSession(cli, list));

  defineCommand(dlq, "get <id>", {
    summary: "Show one dead letter with its attempts and its event",
    examples: ["koine dlq get 01920c3e-…", "koine dlq get 01920c3e-… --event > event.json"],
  })
    .option("--event", "write the event's body instead")
    .action(withSession(cli, get));

  addChoice(
    defineCommand(dlq, "replay [what]", {
      summary: "Run dead letters again, under their ids",
      detail:
        "WHAT is an id or a function's name. Those that fail again become dead letters again; they are not replayed twice by one command.\n" +
        "An interrupted replay loses nothing: the same command goes on with what is left.",
      examples: [
        "koine dlq replay 01920c3e-…",
        "koine dlq replay hello --since 2h --rate 20",
        "koine dlq replay --all --code out-of-memory",
      ],
    }),
  )
    .option("--rate <count>", `how many fall due a second (default ${RATE_DEFAULT})`)
    .option("--all", "of all functions of the namespace")
    .action(withSession(cli, replay));

  addChoice(
    defineCommand(dlq, "purge [what]", {
      summary: "Delete dead letters for good",
      detail: "WHAT is an id or a function's name. Asks first when there is a terminal.",
      examples: ["koine dlq purge 01920c3e-…", "koine dlq purge hello --before 7d", "koine dlq purge --all"],
    }),
  )
    .option("--all", "of all functions of the namespace")
    .option("-y, --yes", "do not ask")
    .action(withSession(cli, purge));
}

function addChoice(command: Command): Command {
  return command
    .option("--code <code>", "only those whose last error was this")
    .option("--since <when>", "only those that failed for good since: 10m, 2h, or a time")
    .option("--before <when>", "only those that did so before: 7d, or a time");
}

function choice(session: Session, name: string | undefined, flags: ChoiceFlags) {
  const nowMs = session.io.clock.nowMs();
  const { code, since, before } = flags;
  return {
    function: name === undefined ? undefined : inPackage(functionNamed(session, name)),
    code,
    since: since === undefined ? undefined : parseSince(since, nowMs),
    before: before === undefined ? undefined : parseSince(before, nowMs),
  };
}

function lettersPath(session: Session, name: string | undefined, rest = ""): string {
  const namespace = name === undefined ? undefined : functionNamed(session, name).namespace;
  return namespacePath(session, `/dead-letters${rest}`, namespace);
}

async function list(
  session: Session,
  name: string | undefined,
  flags: ChoiceFlags & { readonly limit?: string },
): Promise<void> {
  const { client, io, output } = session;
  const nowMs = io.clock.nowMs();
  const most = flags.limit === undefined ? LIMIT_DEFAULT : parseCount(flags.limit, "a number of dead letters");
  const path = lettersPath(session, name);
  output.list(await client.items<DeadLetterView>(path, choice(session, name, flags), most), {
    columns: [
      { title: "ID" },
      { title: "FUNCTION" },
      { title: "KIND" },
      { title: "ATTEMPTS", align: "right" },
      { title: "ERROR" },
      { title: "FAILED" },
    ],
    row: (view) => [
      view.id,
      inPackage(view),
      view.kind,
      String(view.attempts),
      view.code,
      formatAgo(view.diedAt, nowMs),
    ],
    empty: "No dead letters.",
  });
}

async function get(session: Session, id: string, flags: { readonly event?: boolean }): Promise<void> {
  const { client, io, output } = session;
  const path = namespacePath(session, `/dead-letters/${encodeURIComponent(id)}`);
  const view = await client.json<DeadLetterDetailView>("GET", path);
  const { event } = view;
  if (flags.event === true) {
    io.stdout.write(event.body ?? Buffer.from(event.bodyBase64 ?? "", "base64"));
    return;
  }
  output.show(view, () => output.facts(facts(view, output.paint, io.clock.nowMs())));
}

function facts(view: DeadLetterDetailView, paint: Paint, nowMs: number): readonly (readonly [string, string])[] {
  const { event } = view;
  const request = [event.method, event.url, event.destination].filter((part) => part !== undefined).join(" ");
  return [
    ["id", view.id],
    ["function", inPackage(view)],
    ["kind", view.kind],
    ["accepted", `${view.acceptedAt} (${formatAgo(view.acceptedAt, nowMs)})`],
    ["failed", `${view.diedAt} (${formatAgo(view.diedAt, nowMs)})`],
    ["reason", paint("red", view.reason)],
    ...view.history.map((attempt) => [`attempt ${attempt.number}`, attemptText(attempt)] as const),
    ...(request === "" ? [] : [["request", request] as const]),
    ["content type", event.contentType],
    ["event", event.body ?? `base64 ${event.bodyBase64 ?? ""}`],
  ];
}

/** When, how long and how an attempt went. */
export function attemptText({ startedAt, endedAt, outcome, error }: AttemptView): string {
  const took = formatDuration(Date.parse(endedAt) - Date.parse(startedAt));
  return `${startedAt}, ${took}, ${outcome}${error === null ? "" : `: ${error.message} (${error.code})`}`;
}

async function replay(
  session: Session,
  what: string | undefined,
  flags: ChoiceFlags & { readonly rate?: string },
): Promise<void> {
  const { client, output } = session;
  if (what !== undefined && isId(what)) {
    refuseChoice(flags);
    await client.json("POST", namespacePath(session, `/dead-letters/${what}/replay`));
    output.done(`${what} runs again; 'koine runs get ${what}' shows it`);
    if (output.json) output.value({ replayed: 1, activationIds: [what], more: false });
    return;
  }
  requireChoice(what, flags);
  const perSecond = flags.rate === undefined ? RATE_DEFAULT : parseCount(flags.rate, "a number of dead letters");
  const nowMs = session.io.clock.nowMs();
  const wanted = choice(session, what, flags);
  // What fails again meanwhile is not meant.
  const chosen = { ...wanted, before: wanted.before ?? new Date(nowMs).toISOString() };
  const activationIds: string[] = [];
  const progress = output.progress();
  try {
    const limit = Math.min(limits.deadLettersPerCallMax, perSecond * SECONDS_PER_CALL);
    for (let more = true; more;) {
      const page = await replayPage(session, lettersPath(session, what, "/replay"), { ...chosen, limit, perSecond });
      activationIds.push(...page.activationIds);
      ({ more } = page);
      progress.phase(`${plural(activationIds.length, "dead letter")} replayed`);
      // What was replayed falls due over this time; more at once would not run sooner.
      if (more) await session.io.sleep((page.replayed / perSecond) * 1_000, session.signal);
    }
  } finally {
    progress.end();
  }
  output.done(`${plural(activationIds.length, "dead letter")} replayed`);
  if (output.json) output.value({ replayed: activationIds.length, activationIds, more: false });
}

/** Waits while the queue is full. */
async function replayPage(session: Session, path: string, body: unknown): Promise<DeadLettersReplayed> {
  for (;;) {
    try {
      return await session.client.json<DeadLettersReplayed>("POST", path, body);
    } catch (thrown) {
      if (!(thrown instanceof CliFailure) || thrown.code !== "queue-full") throw thrown;
      session.output.note("the queue is full; waiting for room");
      await session.io.sleep(FULL_WAIT_MS, session.signal);
    }
  }
}

async function purge(
  session: Session,
  what: string | undefined,
  flags: ChoiceFlags & { readonly yes?: boolean },
): Promise<void> {
  const { client, output, io } = session;
  let purged = 0;
  if (flags.yes !== true && canAsk(io)) {
    const question = `Delete the dead letters of ${what ?? "all functions"} for good?`;
    if (!(await confirm(io, question, session.signal))) throw new CliFailure("declined", "Nothing was deleted", "");
  }
  if (what !== undefined && isId(what)) {
    refuseChoice(flags);
    await client.json("DELETE", namespacePath(session, `/dead-letters/${what}`));
    purged = 1;
  } else {
    requireChoice(what, flags);
    const chosen = choice(session, what, flags);
    for (let more = true; more;) {
      const page = await client.json<DeadLettersPurged>("POST", lettersPath(session, what, "/purge"), chosen);
      purged += page.purged;
      ({ more } = page);
    }
  }
  output.done(`${plural(purged, "dead letter")} purged`);
  if (output.json) output.value({ purged });
}

function refuseChoice({ code, since, before, all }: ChoiceFlags): void {
  if ([code, since, before, all].every((flag) => flag === undefined)) return;
  throw usageFailure("An id says already which dead letter is meant", "Leave out the other options.");
}

function requireChoice(what: string | undefined, flags: ChoiceFlags): void {
  if ((what === undefined) === (flags.all === true)) return;
  throw what === undefined
    ? usageFailure("Say which dead letters", "Give an id, a function's name, or --all.")
    : usageFailure("A function's name and --all exclude each other", "Use one.");
}
