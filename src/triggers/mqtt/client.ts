import { createConnection, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions } from "node:tls";
import type { IPublishPacket, ISubscription, Packet } from "mqtt-packet";
import { KoineError } from "../../core/errors.ts";
import { aborted, Ending } from "../connection/ending.ts";

export interface MqttOptions {
  readonly host: string;
  readonly port: number;
  /** Null: without TLS. */
  readonly tls: ConnectionOptions | null;
  /** 5, or 4 for MQTT 3.1.1. */
  readonly version: 4 | 5;
  readonly clientId: string;
  readonly username?: string;
  readonly password?: string;
  /** Whether the broker forgets what it has of this client. */
  readonly clean: boolean;
  /** How long the broker keeps what comes while the client is away, in seconds; version 5. */
  readonly sessionSeconds: number;
  readonly keepAliveSeconds: number;
  /** Messages that may be without acknowledgement at a time; version 5. */
  readonly unacknowledgedMax: number;
  readonly messageBytesMax: number;
}

const CONNECT_MS_MAX = 10_000;
const SUBSCRIPTION_FAILED = 0x80;

/** In version 5 by its reason code, in 3.1.1 by its return code. */
const REFUSALS: Readonly<Record<number, string>> = {
  1: "the protocol's version",
  2: "the client identifier",
  3: "the server is not available",
  4: "user name or password",
  5: "not authorized",
  0x84: "the protocol's version",
  0x85: "the client identifier",
  0x86: "user name or password",
  0x87: "not authorized",
  0x88: "the server is not available",
  0x89: "the server is busy",
  0x8a: "this client is banned",
  0x95: "a packet too large",
  0x97: "quota exceeded",
};

/**
 * One connection that subscribes and acknowledges when it is told to, any number of messages being on their way at a time: client libraries hold up all
 * messages until one is acknowledged, or acknowledge before. Subscribes with QoS 0 or 1 only, so that what was sent with 2 comes with 1: exactly once
 * would end at this client's memory. A lost connection is not made again.
 */
export class MqttClient {
  readonly #socket: Socket;
  readonly #ending: Ending;
  readonly #generate: (packet: Packet) => Buffer;
  readonly #waiting = new Map<string, (packet: Packet) => void>();
  readonly #keepAlive: NodeJS.Timeout;
  #heardSincePing = true;
  #onMessage: (message: IPublishPacket) => void = () => {};
  /** Whether the broker had kept a session of this client. */
  sessionPresent = false;

  private constructor(socket: Socket, ending: Ending, generate: (packet: Packet) => Buffer, keepAliveSeconds: number) {
    this.#socket = socket;
    this.#ending = ending;
    this.#generate = generate;
    this.#keepAlive = setInterval(() => this.#ping(), keepAliveSeconds * 1_000).unref();
  }

  /** Messages may come at once, of an earlier session. @throws KoineError `source-failed` when the broker refuses */
  static async connect(
    options: MqttOptions,
    onMessage: (message: IPublishPacket) => void,
    signal: AbortSignal,
  ): Promise<MqttClient> {
    const { default: mqtt } = await import("mqtt-packet");
    const ending = new Ending(signal);
    const { host, port, tls, version } = options;
    const socket =
      tls === null
        ? createConnection({ host, port, noDelay: true })
        : connectTls({ host, port, ...hostName(host), ...tls });
    const generate = (packet: Packet): Buffer => mqtt.generate(packet, { protocolVersion: version });
    const client = new MqttClient(socket, ending, generate, options.keepAliveSeconds);
    client.#onMessage = onMessage;
    const parser = mqtt.parser({ protocolVersion: version });
    parser.on("packet", (packet) => client.#receive(packet));
    parser.on("error", (error: unknown) => ending.fail(error));
    socket.on("data", (chunk: Buffer) => {
      client.#heardSincePing = true;
      parser.parse(chunk);
    });
    socket.on("error", (error) => ending.fail(error));
    socket.on("close", () => ending.fail("the broker has closed the connection"));
    ending.signal.addEventListener("abort", () => clearInterval(client.#keepAlive), { once: true });
    const timer = setTimeout(() => ending.fail("the broker did not answer in time"), CONNECT_MS_MAX);
    try {
      await client.#open(options);
      return client;
    } catch (thrown) {
      client.close();
      throw thrown;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Aborts when the connection is gone, too. */
  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  /** @throws KoineError `source-failed` that names the first subscription that was refused */
  async subscribe(subscriptions: readonly ISubscription[]): Promise<void> {
    const answer = await this.#ask("suback", { cmd: "subscribe", messageId: 1, subscriptions: [...subscriptions] });
    const granted = "granted" in answer ? answer.granted : [];
    const refused = granted.findIndex((code) => typeof code !== "number" || code >= SUBSCRIPTION_FAILED);
    if (refused >= 0)
      throw failed(
        `the broker refuses the subscription to '${subscriptions[refused]?.topic}' (code ${String(granted[refused])})`,
      );
  }

  acknowledge(messageId: number): void {
    this.#write({ cmd: "puback", messageId });
  }

  /** Stops reading until `resume`; the broker waits then. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Takes leave and ends the connection; the session stays at the broker, as its settings say. */
  close(): void {
    clearInterval(this.#keepAlive);
    this.#onMessage = () => {};
    if (this.#socket.writable && !this.#socket.connecting)
      this.#socket.end(this.#generate({ cmd: "disconnect" }), () => this.#socket.destroy());
    else this.#socket.destroy();
  }

  async #open(options: MqttOptions): Promise<void> {
    const { version, clientId, clean, username, password, keepAliveSeconds } = options;
    const properties = {
      sessionExpiryInterval: clean ? 0 : options.sessionSeconds,
      receiveMaximum: options.unacknowledgedMax,
      maximumPacketSize: options.messageBytesMax,
    };
    const answer = await this.#ask("connack", {
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: version,
      clientId,
      clean,
      keepalive: keepAliveSeconds,
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password: Buffer.from(password) }),
      ...(version === 5 ? { properties } : {}),
    });
    if (answer.cmd !== "connack") throw failed("the broker answered something else than CONNACK");
    const code = (version === 5 ? answer.reasonCode : answer.returnCode) ?? 0;
    if (code !== 0) throw failed(`the broker refuses the connection: ${REFUSALS[code] ?? `code ${code}`}`);
    this.sessionPresent = answer.sessionPresent;
  }

  async #ask(answerKind: string, packet: Packet): Promise<Packet> {
    const { promise, resolve } = Promise.withResolvers<Packet>();
    this.#waiting.set(answerKind, resolve);
    this.#write(packet);
    return await Promise.race([promise, aborted(this.signal)]);
  }

  #receive(packet: Packet): void {
    if (packet.cmd === "publish") this.#onMessage(packet);
    else if (packet.cmd === "disconnect")
      this.#ending.fail(`the broker has ended the connection (code ${packet.reasonCode ?? 0})`);
    else this.#waiting.get(packet.cmd)?.(packet);
  }

  #ping(): void {
    if (!this.#heardSincePing && !this.#socket.isPaused()) this.#ending.fail("the broker is silent");
    this.#heardSincePing = false;
    this.#write({ cmd: "pingreq" });
  }

  #write(packet: Packet): void {
    if (this.#socket.writable) this.#socket.write(this.#generate(packet));
  }
}

/** The name that the server's certificate must have; addresses have none to ask for. */
function hostName(host: string): { readonly servername?: string } {
  return /^[\d.]+$|:/.test(host) ? {} : { servername: host };
}

function failed(detail: string): KoineError {
  return new KoineError("source-failed", { detail });
}
