import { z } from "zod";
import { KoineError } from "../../core/errors.ts";
import { tlsOptions, tlsSettings } from "../connection/tls.ts";
import { address, secretReference, type SourceHost } from "../trigger.ts";

/** How to reach a server of Redis, or of anything that speaks its protocol. */
export const connectionSettings = {
  url: address("redis://HOST:PORT/DATABASE, or rediss:// for TLS.", ["redis", "rediss"]),
  username: z.string().max(256).optional().meta({ description: "A user of the server's access lists." }),
  password: secretReference("The password").optional(),
  tls: tlsSettings.optional(),
};

type Connection = z.output<z.ZodObject<typeof connectionSettings>>;

/** A connection; commands are sent and answered as they are, texts as bytes. */
export interface Redis {
  send(...words: readonly (string | Buffer)[]): Promise<unknown>;
  /** Ends it at once; what waits for an answer rejects. */
  close(): void;
}

const CONNECT_MS_MAX = 10_000;
/** Longer than any wait for news: a connection that is silent for so long is dead. */
const SILENCE_MS_MAX = 30_000;
const PORT = 6_379;

/** A command that waits for news must not wait longer than this, in milliseconds. */
export const BLOCK_MS_MAX = 5_000;

/**
 * Connects once; a connection that is lost is not made again: the source ends and is opened anew.
 * @param waits whether the connection is for commands that wait for news, so that silence on it means something
 */
export async function connect(
  settings: Connection,
  host: Pick<SourceHost, "secret">,
  { signal, waits = false }: { readonly signal: AbortSignal; readonly waits?: boolean },
): Promise<Redis> {
  const { createClient, RESP_TYPES } = await import("@redis/client");
  signal.throwIfAborted();
  const url = new URL(settings.url);
  const { username = decodeURIComponent(url.username), password, tls } = settings;
  const common = {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: Number(url.port || PORT),
    connectTimeout: CONNECT_MS_MAX,
    ...(waits ? { socketTimeout: SILENCE_MS_MAX } : {}),
    reconnectStrategy: false as const,
  };
  const client = createClient({
    RESP: 2,
    socket: url.protocol === "rediss:" ? { ...common, tls: true, ...tlsOptions(tls, host) } : common,
    ...(username === "" ? {} : { username }),
    ...(password === undefined ? {} : { password: host.secret(password) }),
    database: Number(url.pathname.slice(1) || 0),
    disableOfflineQueue: true,
    disableClientInfo: true,
    commandOptions: { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } },
  });
  // Errors come as the rejections of commands; without a listener they would end the platform.
  client.on("error", () => {});
  const close = (): void => {
    if (client.isOpen) client.destroy();
  };
  const abandon = (): void => close();
  signal.addEventListener("abort", abandon, { once: true });
  try {
    await client.connect();
  } catch (thrown) {
    close();
    signal.throwIfAborted();
    throw thrown;
  } finally {
    signal.removeEventListener("abort", abandon);
  }
  return { send: (...words) => client.sendCommand<unknown>([...words]), close };
}

/** Two connections: waiting for news on one must not hold up what is acknowledged on the other. */
export async function connectTwice(
  settings: Connection,
  host: Pick<SourceHost, "secret">,
  signal: AbortSignal,
): Promise<{ readonly news: Redis; readonly control: Redis; close(): void }> {
  const control = await connect(settings, host, { signal });
  try {
    const news = await connect(settings, host, { signal, waits: true });
    return {
      news,
      control,
      close: () => {
        news.close();
        control.close();
      },
    };
  } catch (thrown) {
    control.close();
    throw thrown;
  }
}

/** Checks that a key is of a type, or not there yet. @throws KoineError `source-failed` */
export async function checkType(redis: Redis, key: string, type: "stream" | "list"): Promise<void> {
  const found = String(await redis.send("TYPE", key));
  if (found !== "none" && found !== type)
    throw new KoineError("source-failed", { detail: `the key '${key}' holds a ${found}, not a ${type}` });
}

/** The server and database that events say they are from; without a user's name. */
export function serverOf(url: string): string {
  const { protocol, hostname, port, pathname } = new URL(url);
  return `${protocol}//${hostname}:${port || PORT}/${Number(pathname.slice(1) || 0)}`;
}

/** @throws KoineError `source-failed` for an answer that the protocol does not know */
export function arrayOf(reply: unknown): readonly unknown[] {
  if (reply === null) return [];
  if (Array.isArray(reply)) return reply;
  throw new KoineError("source-failed", { detail: "the server answered something that is no list" });
}

export function bytesOf(reply: unknown): Buffer {
  return Buffer.isBuffer(reply) ? reply : Buffer.from(String(reply));
}
