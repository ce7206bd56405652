import type { CloudEvent } from "../core/event.ts";
import { KoineError } from "../core/errors.ts";
import { type Destinations, type FunctionRef, parseFunctionRef } from "../core/function.ts";

/** A destination as it was written, understood. */
export type Destination =
  | { readonly kind: "function"; readonly ref: FunctionRef }
  | { readonly kind: "topic"; readonly topic: string }
  | { readonly kind: "url"; readonly url: string };

/** Publishes events to topics. */
export interface TopicPublisher {
  /** Resolves once it is accepted durably; the same event twice is the same event. @throws KoineError `topic-not-found` */
  publish(request: { readonly namespace: string; readonly topic: string; readonly event: CloudEvent }): Promise<void>;
}

/** The secret that signs what is sent to URLs, unless a function names another. */
export const DEFAULT_DESTINATION_SECRET = "WEBHOOK_SECRET";

const TOPIC = /^[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$/;

/** @throws KoineError `destination-refused` */
export function parseDestination(text: string, namespace: string): Destination {
  const refuse = (detail: string): KoineError => new KoineError("destination-refused", { destination: text, detail });
  const [, scheme = "", rest = ""] = /^([a-z]+):(.*)$/s.exec(text) ?? [];
  switch (scheme) {
    case "function": {
      let ref: FunctionRef;
      try {
        ref = parseFunctionRef(rest, namespace);
      } catch {
        throw refuse("that is no name of a function");
      }
      if (ref.namespace !== namespace) throw refuse("it is in another namespace");
      return { kind: "function", ref };
    }
    case "topic":
      if (!TOPIC.test(rest)) throw refuse("that is no name of a topic");
      return { kind: "topic", topic: rest };
    case "http":
    case "https": {
      if (!URL.canParse(text)) throw refuse("that is no URL");
      const { username, password, hash, href } = new URL(text);
      if (username !== "" || password !== "") throw refuse("a URL with a password in it would be shown to everybody");
      if (hash !== "") throw refuse("what follows '#' is never sent");
      return { kind: "url", url: href };
    }
    default:
      throw refuse("it begins with none of function:, topic:, https:");
  }
}

/** The secrets that a function's destinations need. */
export function destinationSecrets(destinations: Destinations | undefined, namespace: string): readonly string[] {
  if (destinations === undefined) return [];
  const { onSuccess, onFailure, secret = DEFAULT_DESTINATION_SECRET } = destinations;
  const toUrl = [onSuccess, onFailure].some(
    (text) => text !== undefined && parseDestination(text, namespace).kind === "url",
  );
  return toUrl ? [secret] : [];
}
