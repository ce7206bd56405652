import { type Command, Option } from "commander";
import type { TriggerKindView, TriggerTestView, TriggerView } from "../../core/api.ts";
import { nearest } from "../../core/nearest.ts";
import { namespacePath } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { collect, defineCommand, withSession } from "../command.ts";
import { CliFailure, usageFailure } from "../failure.ts";
import { formatAgo, formatDuration } from "../quantity.ts";
import { jsonOf, planTrigger, type TriggerFlags } from "../trigger-settings.ts";

/** Adds `trigger create|list|get|update|pause|resume|delete|test|kinds`. */
export function addTrigger(parent: Command, cli: Cli): void {
  const trigger = defineCommand(parent, "trigger", {
    summary: "Run functions when something happens",
    examples: ["koine trigger create nightly report --cron '0 3 * * *' --timezone Europe/Berlin", "koine trigger list"],
  });
  addCreate(trigger, cli);
  addUpdate(trigger, cli);
  addReading(trigger, cli);
  addActions(trigger, cli);
}

function addCreate(trigger: Command, cli: Cli): void {
  const command = defineCommand(trigger, "create <trigger> <function>", {
    summary: "Make a trigger",
    detail:
      "The kind is said by --kind, or by --cron, --rate, --at, --topic. Its settings come from --settings and --set; --set NAME=secret:SECRET\n" +
      "names a secret of the namespace, which is how every credential is given.",
    examples: [
      "koine trigger create nightly report --cron '0 3 * * *' --timezone Europe/Berlin",
      'koine trigger create paid ship-order --topic orders --filter \'{"type":["order.paid"]}\'',
      "koine trigger create push on-push --kind webhook --set path=/hooks/github --set auth.kind=github --set auth.secret=secret:GITHUB_SECRET",
    ],
  });
  addTriggerOptions(command)
    .option("--paused", "make it without starting it")
    .action(
      withSession(cli, async (session, name: string, target: string, flags: TriggerFlags) => {
        const request = { ...(await planTrigger(session.io, flags, null)), name, function: target };
        const view = await session.client.json<TriggerView>("POST", namespacePath(session, "/triggers"), request);
        session.output.done(`created trigger ${name}: ${view.kind} to ${view.function}`);
        session.output.show(view, () => factsOf(session, view));
      }),
    );
}

function addUpdate(trigger: Command, cli: Cli): void {
  const command = defineCommand(trigger, "update <trigger>", {
    summary: "Change a trigger; what is not said stays",
    examples: [
      "koine trigger update nightly --cron '0 4 * * *'",
      "koine trigger update paid --batch-size 100 --batch-window 5s",
    ],
  });
  addTriggerOptions(command)
    .option("--function <function>", "function that it calls: NAME or PACKAGE/NAME")
    .action(
      withSession(cli, async (session, name: string, flags: TriggerFlags) => {
        const before = await session.client.json<TriggerView>("GET", triggerPath(session, name));
        const request = await planTrigger(session.io, flags, before);
        const view = await session.client.json<TriggerView>("PUT", triggerPath(session, name), request);
        session.output.done(`updated trigger ${name}`);
        session.output.show(view, () => factsOf(session, view));
      }),
    );
}

function addTriggerOptions(command: Command): Command {
  return command
    .option("--kind <kind>", "where events come from: schedule, webhook, kafka, …; see 'koine trigger kinds'")
    .option("--set <name=value>", "a setting of the kind; VALUE is JSON, text or secret:NAME; may be repeated", collect)
    .option("--settings <json>", "settings as a JSON object, or @FILE")
    .option("--cron <expression>", "five, six (seconds first) or seven (year last) fields")
    .option("--rate <rate>", "every so long: '30s', '5 minutes', '1 day'")
    .option("--at <time>", "once: 2030-01-31T09:00:00Z")
    .option("--timezone <zone>", "time zone of --cron and --at, such as Europe/Berlin")
    .option("--topic <topic>", "topic to subscribe to")
    .option("--filter <json>", "pattern on the event, or @FILE; only what matches is delivered")
    .option("--batch-size <count>", "most events for one invocation")
    .option("--batch-window <duration>", "how long a batch fills: 500ms, 5s")
    .addOption(new Option("--ordering <which>", "which events run one after the other").choices(["none", "key", "all"]))
    .option("--attempts <count>", "attempts of an event, the first included")
    .option(
      "--retry-delay <duration>",
      "wait after the first failed attempt, after the second, …; may be repeated",
      collect,
    )
    .option("--max-age <duration>", "age at which an event is given up")
    .addOption(
      new Option("--priority <priority>", "against other work of the function").choices(["high", "normal", "low"]),
    )
    .option("--description <text>", "what the trigger is for");
}

function addReading(trigger: Command, cli: Cli): void {
  defineCommand(trigger, "list", { summary: "List triggers and how they are", examples: ["koine trigger list"] })
    .alias("ls")
    .action(
      withSession(cli, async (session) => {
        const nowMs = session.io.clock.nowMs();
        session.output.list(await session.client.items<TriggerView>(namespacePath(session, "/triggers")), {
          columns: [
            { title: "NAME" },
            { title: "KIND" },
            { title: "FUNCTION" },
            { title: "STATE" },
            { title: "DELIVERED", align: "right" },
            { title: "LAST EVENT" },
            { title: "DETAIL" },
          ],
          row: (view) => [
            view.name,
            view.kind,
            view.function,
            view.state,
            String(view.events.delivered),
            view.lastEventAt === null ? "-" : formatAgo(view.lastEventAt, nowMs),
            view.error?.message ?? view.route ?? view.detail,
          ],
          empty: `No triggers in namespace '${session.settings.namespace}'; 'koine trigger create' makes one.`,
        });
      }),
    );

  defineCommand(trigger, "get <trigger>", {
    summary: "Show a trigger, how it is, and its last error",
    examples: ["koine trigger get nightly", "koine trigger get nightly -o json"],
  }).action(
    withSession(cli, async (session, name: string) => {
      const view = await session.client.json<TriggerView>("GET", triggerPath(session, name));
      session.output.show(view, () => factsOf(session, view));
    }),
  );

  defineCommand(trigger, "kinds [kind]", {
    summary: "List the kinds of triggers, or the settings of one",
    examples: ["koine trigger kinds", "koine trigger kinds schedule"],
  }).action(
    withSession(cli, async (session, kind: string | undefined) => {
      const kinds = await session.client.items<TriggerKindView>("/v1/trigger-kinds");
      if (kind === undefined)
        session.output.list(kinds, {
          columns: [{ title: "KIND" }, { title: "EVENTS" }],
          row: ({ name, summary }) => [name, summary],
          empty: "",
        });
      else showKind(session, kinds, kind);
    }),
  );
}

function addActions(trigger: Command, cli: Cli): void {
  for (const [action, summary, done] of [
    ["pause", "Stop a trigger; it goes on where it was when it is resumed", "paused"],
    ["resume", "Let a paused trigger go on", "resumed"],
  ] as const) {
    defineCommand(trigger, `${action} <trigger>`, { summary, examples: [`koine trigger ${action} nightly`] }).action(
      withSession(cli, async (session, name: string) => {
        const view = await session.client.json<TriggerView>("POST", triggerPath(session, name, `/${action}`));
        session.output.done(`${done} trigger ${name}`);
        if (session.output.json) session.output.value(view);
      }),
    );
  }

  defineCommand(trigger, "delete <trigger>", {
    summary: "Delete a trigger; what it has delivered stays",
    examples: ["koine trigger delete nightly"],
  })
    .alias("rm")
    .action(
      withSession(cli, async (session, name: string) => {
        await session.client.json("DELETE", triggerPath(session, name));
        session.output.done(`deleted trigger ${name}`);
        if (session.output.json) session.output.value({ deleted: [name] });
      }),
    );

  defineCommand(trigger, "test <trigger>", {
    summary: "Look whether the source can be reached and whether an event passes the filter",
    detail: "Without --event an event is made up as the source would send it. Nothing is delivered without --deliver.",
    examples: ["koine trigger test nightly", "koine trigger test paid --event @event.json --deliver"],
  })
    .option("--event <json>", "a CloudEvent as JSON, or @FILE")
    .option("--deliver", "deliver the event when it passes")
    .action(
      withSession(
        cli,
        async (session, name: string, flags: { readonly event?: string; readonly deliver?: boolean }) => {
          const event = flags.event === undefined ? undefined : await jsonOf(session.io, flags.event, "--event");
          const request = {
            ...(event === undefined ? {} : { event }),
            ...(flags.deliver === true ? { deliver: true } : {}),
          };
          const result = await session.client.json<TriggerTestView>(
            "POST",
            triggerPath(session, name, "/test"),
            request,
          );
          session.output.show(result, () => testText(session, result));
          if (result.connection?.ok === false)
            throw new CliFailure(
              "source-failed",
              `The source cannot be used: ${result.connection.detail}`,
              "Correct the settings, or start its server.",
            );
        },
      ),
    );
}

function testText(session: Session, { event, matched, activationId, connection }: TriggerTestView): string {
  const delivered = activationId === null ? "no" : `activation ${activationId}`;
  return session.output.facts([
    ...(connection === null ? [] : [["source", connection.ok ? "can be reached" : connection.detail] as const]),
    ["event", JSON.stringify(event)],
    ["passes the filter", matched ? "yes" : "no"],
    ["delivered", delivered],
  ]);
}

function factsOf(session: Session, view: TriggerView): string {
  const nowMs = session.io.clock.nowMs();
  const { batch, events, error, lag } = view;
  const optional = (name: string, value: string | null): (readonly [string, string])[] =>
    value === null || value === "" ? [] : [[name, value]];
  return session.output.facts([
    ["trigger", view.name],
    ["kind", view.kind],
    ["function", view.function],
    ["state", view.detail === "" ? view.state : `${view.state}: ${view.detail}`],
    ...optional("route", view.route),
    ...optional("error", error === null ? null : `${error.message} (${formatAgo(error.at, nowMs)})`),
    ["settings", JSON.stringify(view.settings)],
    ...optional("filter", view.filter === null ? null : JSON.stringify(view.filter)),
    ...optional("batch", batch === null ? null : `up to ${batch.size} events, ${formatDuration(batch.windowMs)}`),
    ...optional("ordering", view.ordering === "none" ? null : view.ordering),
    ...optional("retry", Object.keys(view.retry).length === 0 ? null : JSON.stringify(view.retry)),
    ...optional("lag", lag?.events === undefined || lag.events === null ? null : `${lag.events} events`),
    [
      "events",
      `${events.received} received, ${events.filtered} filtered out, ${events.delivered} delivered, ${events.failed} failed`,
    ],
    ...optional("description", view.description),
  ]);
}

function showKind(session: Session, kinds: readonly TriggerKindView[], name: string): void {
  const kind = kinds.find((one) => one.name === name);
  if (kind === undefined) {
    const names = kinds.map((one) => one.name);
    const near = nearest(name, names);
    throw usageFailure(
      `There is no kind of trigger '${name}'${near === null ? "" : `; did you mean '${near}'?`}`,
      `Kinds: ${names.join(", ")}.`,
    );
  }
  if (session.output.json) {
    session.output.value(kind);
    return;
  }
  session.output.list(settingsOf(kind), {
    columns: [{ title: "SETTING" }, { title: "TYPE" }, { title: "DEFAULT" }, { title: "MEANING" }],
    row: (row) => row,
    empty: `Kind '${name}' has no settings.`,
  });
}

interface Schema {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly default?: unknown;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
}

function settingsOf({ settings }: TriggerKindView): readonly (readonly string[])[] {
  const schema = settings as Schema;
  const required = new Set(schema.required);
  return Object.entries(schema.properties ?? {}).map(([name, field]) => [
    name,
    typeOf(field),
    field.default === undefined ? (required.has(name) ? "(required)" : "-") : JSON.stringify(field.default),
    field.description ?? "",
  ]);
}

function typeOf(schema: Schema): string {
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices !== undefined) return [...new Set(choices.map(typeOf))].join(" | ");
  if (schema.enum !== undefined) return schema.enum.map(String).join(" | ");
  if (schema.const !== undefined) return String(schema.const);
  return schema.type ?? "any";
}

function triggerPath(session: Session, name: string, rest = ""): string {
  return namespacePath(session, `/triggers/${encodeURIComponent(name)}${rest}`);
}
