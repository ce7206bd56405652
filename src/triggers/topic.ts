import { z } from "zod";
import { subscriptionKind, type SubscriptionKind } from "./trigger.ts";

const schema = z.strictObject({
  topic: z.string().min(1).max(64).meta({ description: "Name of a topic of the same namespace." }),
});

/** Events that are published to a topic, by HTTP or by functions. */
export function createTopicKind(): SubscriptionKind {
  return subscriptionKind({
    name: "topic",
    summary: "events that functions and others publish to a topic",
    settings: schema,
    topicOf: ({ topic }) => topic,
    sample: ({ topic }) => ({
      specversion: "1.0",
      id: "sample",
      source: `/topics/${topic}`,
      type: "koine.topic.message",
      datacontenttype: "application/json",
      data: { hello: "world" },
    }),
  });
}
