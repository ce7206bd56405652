import type { Command } from "commander";
import type { PublishView, TopicView } from "../../core/api.ts";
import { namespacePath } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { readInvocationBody } from "../invocation-body.ts";
import { formatAgo, plural } from "../quantity.ts";

const PUBLISH_MS_MAX = 60_000;

/** Adds `topic create|list|publish|delete`. */
export function addTopic(parent: Command, cli: Cli): void {
  const topic = defineCommand(parent, "topic", {
    summary: "Publish events to every function that subscribes",
    examples: ["koine topic create orders", "koine topic publish orders -d '{\"id\":17}' --type order.paid"],
  });

  defineCommand(topic, "create <topic>", { summary: "Make a topic", examples: ["koine topic create orders"] })
    .option("--description <text>", "what the topic is for")
    .action(
      withSession(cli, async (session, name: string, flags: { readonly description?: string }) => {
        const { description } = flags;
        const request = description === undefined ? {} : { description };
        const view = await session.client.json<TopicView>("PUT", topicPath(session, name), request);
        session.output.done(`topic ${name} is there; 'koine trigger create NAME FUNCTION --topic ${name}' subscribes`);
        if (session.output.json) session.output.value(view);
      }),
    );

  defineCommand(topic, "list", { summary: "List topics and who subscribes", examples: ["koine topic list"] })
    .alias("ls")
    .action(
      withSession(cli, async (session) => {
        const nowMs = session.io.clock.nowMs();
        session.output.list(await session.client.items<TopicView>(namespacePath(session, "/topics")), {
          columns: [{ title: "NAME" }, { title: "CREATED" }, { title: "SUBSCRIPTIONS" }],
          row: (view) => [view.name, formatAgo(view.createdAt, nowMs), view.subscriptions.join(", ") || "-"],
          empty: `No topics in namespace '${session.settings.namespace}'; 'koine topic create' makes one.`,
        });
      }),
    );

  addPublish(topic, cli);

  defineCommand(topic, "delete <topic>", {
    summary: "Delete a topic that nothing subscribes to",
    examples: ["koine topic delete orders"],
  })
    .alias("rm")
    .action(
      withSession(cli, async (session, name: string) => {
        await session.client.json("DELETE", topicPath(session, name));
        session.output.done(`deleted topic ${name}`);
        if (session.output.json) session.output.value({ deleted: [name] });
      }),
    );
}

interface PublishFlags {
  readonly data?: string;
  readonly contentType?: string;
  readonly type?: string;
  readonly subject?: string;
  readonly source?: string;
  readonly id?: string;
}

function addPublish(topic: Command, cli: Cli): void {
  defineCommand(topic, "publish <topic>", {
    summary: "Publish an event",
    detail: "It is on disk for every subscription when the command ends.",
    examples: [
      "koine topic publish orders -d '{\"id\":17}' --type order.paid",
      "koine topic publish orders -d @event.json --content-type application/cloudevents+json",
    ],
  })
    .option("-d, --data <data>", "text, @FILE, or - for stdin")
    .option("--content-type <type>", "type of the data; recognised by default")
    .option("--type <type>", "type of the event")
    .option("--subject <subject>", "what the event is about")
    .option("--source <source>", "who emitted it")
    .option("--id <id>", "id of the event: the same again is delivered once")
    .action(
      withSession(cli, async (session, name: string, flags: PublishFlags) => {
        const view = await publish(session, name, flags);
        session.output.show(view, () => `published to ${plural(view.subscriptions, "subscription")}`);
      }),
    );
}

async function publish(session: Session, name: string, flags: PublishFlags): Promise<PublishView> {
  const { type, subject, source, id, contentType } = flags;
  const { body, contentType: found } = await readInvocationBody(session.io, flags.data, {
    typeIsSaid: contentType !== undefined,
  });
  const isBinary = [type, subject, source, id].some((attribute) => attribute !== undefined);
  const attributes: Record<string, string> = isBinary
    ? {
        "ce-specversion": "1.0",
        "ce-id": id ?? crypto.randomUUID(),
        "ce-source": source ?? `/topics/${name}`,
        "ce-type": type ?? "koine.topic.message",
        ...(subject === undefined ? {} : { "ce-subject": encodeURIComponent(subject) }),
      }
    : {};
  const sent = contentType ?? found;
  const response = await session.client.send({
    method: "POST",
    path: topicPath(session, name),
    headers: { accept: "application/json", ...attributes, ...(sent === undefined ? {} : { "content-type": sent }) },
    body,
    timeoutMs: PUBLISH_MS_MAX,
  });
  if ((response.statusCode ?? 0) >= 400) throw await session.client.failure(response);
  return (await session.client.readJson(response)) as PublishView;
}

function topicPath(session: Session, name: string): string {
  return namespacePath(session, `/topics/${encodeURIComponent(name)}`);
}
