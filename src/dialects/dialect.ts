import type { IncomingMessage, ServerResponse } from "node:http";
import type { Caller } from "../core/invocation.ts";

/** A request at the edge, after identity and limits. */
export interface GatewayRequest {
  readonly incoming: IncomingMessage;
  readonly response: ServerResponse;
  /** Request id; activation id of the invocation it becomes. */
  readonly id: string;
  readonly receivedAtMs: number;
  readonly path: string;
  /** With `?` when there is one, else empty. */
  readonly query: string;
  /** Null: nobody in particular (authentication is configured and the request carries none). */
  readonly caller: Caller | null;
}

/** A handler model's adapters: files that run inside the sandbox. */
export interface HandlerAdapters {
  /** The folder that holds `<language>/<model>.*`, seen inside as `/koine/handlers/<dialect>`. */
  readonly folder: string;
  /** Models by language, in the order in which they are tried on a module: `{ nodejs: ["web"], python: ["wsgi"] }`. */
  readonly models: Readonly<Record<string, readonly string[]>>;
}

/** Another platform's way of speaking: its API, events, project files and handler models. */
export interface Dialect {
  readonly name: string;
  /** Answers true when it has taken the request; it then answers it itself. Must be cheap: it is on the path of every request. */
  handle(request: GatewayRequest): boolean;
  readonly adapters: HandlerAdapters | null;
  /** Paths and schemas for `/openapi.json`, where the dialect has an API described by schemas. */
  openapi?(): Readonly<Record<string, unknown>>;
}
