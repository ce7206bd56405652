import type { Client, ClientConfig } from "pg";
import type { z } from "zod";
import { tlsOptions, tlsSettings } from "../connection/tls.ts";
import { address, secretReference, type SourceHost } from "../trigger.ts";

/** How to reach a database of PostgreSQL. */
export const connectionSettings = {
  url: address("postgres://USER@HOST:PORT/DATABASE", ["postgres", "postgresql"]),
  password: secretReference("The user's password").optional(),
  tls: tlsSettings.optional().meta({
    description: "When it is there, even as {}, the connection is encrypted and the server's certificate is checked.",
  }),
};

type Connection = z.output<z.ZodObject<typeof connectionSettings>>;

const CONNECT_MS_MAX = 10_000;
const STATEMENT_MS_MAX = 30_000;
const PORT = 5_432;

/** One connection that is not made again when it is lost: `lost` then rejects, and the source is opened anew. */
export interface Database {
  readonly client: Client;
  /** Never resolves. */
  readonly lost: Promise<never>;
  close(): Promise<void>;
}

/** @throws Error of the client library, whose messages the host cleans of secrets */
export async function connect(
  settings: Connection,
  host: Pick<SourceHost, "secret" | "trigger">,
  signal: AbortSignal,
): Promise<Database> {
  const { default: pg } = await import("pg");
  signal.throwIfAborted();
  const client = new pg.Client(configOf(settings, host));
  const { promise: lost, reject } = Promise.withResolvers<never>();
  lost.catch(() => {});
  client.on("error", reject);
  client.on("end", () => reject(new Error("the server has closed the connection")));
  const close = async (): Promise<void> => {
    await client.end().catch(() => {});
  };
  const abandon = (): void => void close();
  signal.addEventListener("abort", abandon, { once: true });
  try {
    await client.connect();
  } catch (thrown) {
    await close();
    signal.throwIfAborted();
    throw thrown;
  } finally {
    signal.removeEventListener("abort", abandon);
  }
  return { client, lost, close };
}

function configOf({ url, password, tls }: Connection, host: Pick<SourceHost, "secret" | "trigger">): ClientConfig {
  const { hostname, port, pathname, username } = new URL(url);
  const user = decodeURIComponent(username);
  return {
    host: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port || PORT),
    database: databaseOf(pathname, user),
    ...(user === "" ? {} : { user }),
    ...(password === undefined ? {} : { password: host.secret(password) }),
    ...(tls === undefined ? { ssl: false } : { ssl: tlsOptions(tls, host) }),
    connectionTimeoutMillis: CONNECT_MS_MAX,
    query_timeout: STATEMENT_MS_MAX,
    keepAlive: true,
    application_name: `koine trigger ${host.trigger.name}`.slice(0, 63),
  };
}

function databaseOf(pathname: string, user: string): string {
  return decodeURIComponent(pathname.slice(1)) || user || "postgres";
}

/** The database that events say they are from; without the user's name. */
export function sourceOf(url: string): string {
  const { hostname, port, pathname, username } = new URL(url);
  return `postgres://${hostname}:${port || PORT}/${encodeURIComponent(databaseOf(pathname, decodeURIComponent(username)))}`;
}

/** An identifier for a statement: quoted, so exactly the one that is meant, in its own case. */
export function quoted(name: string): string {
  return name.split(".").map(quotedWhole).join(".");
}

/** As `quoted`, for names that may hold dots of their own. */
export function quotedWhole(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Resolves after a while, when it is woken, or when the signal aborts. */
export class Nap {
  #wake: (() => void) | null = null;
  #woken = false;

  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  async take({ clock }: Pick<SourceHost, "clock">, mostMs: number, signal: AbortSignal): Promise<void> {
    if (!this.#woken && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const cancel = clock.after(mostMs, resolve);
      signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      cancel();
      this.#wake = null;
    }
    this.#woken = false;
  }
}
