import type { Msg, MsgHdrs, NatsConnection, TlsOptions } from "@nats-io/transport-node";
import { z } from "zod";
import type { BrokerMessage } from "../connection/message.ts";
import { tlsOptions, tlsSettings } from "../connection/tls.ts";
import { address, secretReference, type SourceHost } from "../trigger.ts";

const SERVERS_MAX = 16;
const CONNECT_MS_MAX = 10_000;
const PING_MS = 20_000;
const PINGS_OUT_MAX = 2;

/** How to reach the servers of NATS. */
export const connectionSettings = {
  servers: z
    .array(address("nats://HOST:PORT, or tls:// for TLS.", ["nats", "tls"]))
    .min(1)
    .max(SERVERS_MAX)
    .meta({ description: "Addresses of servers, one of which is used.", examples: [["nats://127.0.0.1:4222"]] }),
  username: z.string().max(256).optional().meta({ description: "The user's name." }),
  password: secretReference("The password").optional(),
  token: secretReference("The token").optional(),
  nkey: secretReference("The seed of an NKey").optional(),
  credentials: secretReference("The content of a .creds file").optional(),
  tls: tlsSettings.optional(),
};

type Connection = z.output<z.ZodObject<typeof connectionSettings>>;

/** A subject, maybe with wildcards. */
export const subject = z
  .string()
  .min(1)
  .max(512)
  .regex(
    /^(?:[^\s.*>]+|\*)(?:\.(?:[^\s.*>]+|\*))*(?:\.>)?$|^>$/,
    "is not a subject: * is one token, > all that is left",
  );

/** Connects once; a connection that is lost is not made again: the source ends and is opened anew. */
export async function connectNats(
  settings: Connection,
  host: Pick<SourceHost, "secret" | "trigger">,
  signal: AbortSignal,
): Promise<NatsConnection> {
  const nats = await import("@nats-io/transport-node");
  signal.throwIfAborted();
  const { servers, username, password, token, nkey, credentials, tls } = settings;
  const secure = tls !== undefined || servers.some((server) => server.startsWith("tls:"));
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  const authenticators = [
    ...(nkey === undefined ? [] : [nats.nkeyAuthenticator(bytes(host.secret(nkey).trim()))]),
    ...(credentials === undefined ? [] : [nats.credsAuthenticator(bytes(host.secret(credentials)))]),
  ];
  const connection = await nats.connect({
    servers: servers.map((server) => new URL(server).host),
    name: `koine ${host.trigger.namespace}/${host.trigger.name}`,
    reconnect: false,
    timeout: CONNECT_MS_MAX,
    pingInterval: PING_MS,
    maxPingOut: PINGS_OUT_MAX,
    ...(username === undefined ? {} : { user: username }),
    ...(password === undefined ? {} : { pass: host.secret(password) }),
    ...(token === undefined ? {} : { token: host.secret(token) }),
    ...(authenticators.length === 0 ? {} : { authenticator: authenticators }),
    // Whatever stands here goes to node:tls, though the type names but a few.
    ...(secure ? { tls: tlsOptions(tls, host) as TlsOptions } : {}),
  });
  if (signal.aborted) {
    await connection.close();
    signal.throwIfAborted();
  }
  return connection;
}

/** Tells, once, that a connection is gone. */
export function onClosed(connection: NatsConnection, tell: (reason: unknown) => void): void {
  connection.closed().then((error) => tell(error ?? "the server has closed the connection"), tell);
}

/** The servers that events say they are from; without users' names. */
export function serversOf({ servers }: Connection): string {
  const [first = ""] = servers;
  return `nats://${new URL(first.replace(/^\w+:/, "http:")).host}`;
}

/** What the binding for NATS says of messages. */
export function brokerMessage({
  data,
  headers,
}: Pick<Msg, "data"> & { readonly headers?: MsgHdrs | undefined }): BrokerMessage {
  const names = headers?.keys() ?? [];
  return {
    payload: Buffer.from(data.buffer, data.byteOffset, data.byteLength),
    headers: names.map((name) => [name, headers?.get(name) ?? ""] as const),
    contentType: headers?.get("content-type") || headers?.get("Content-Type") || undefined,
    attributePrefixes: ["ce-"],
  };
}
