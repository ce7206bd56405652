import assert from "node:assert/strict";
import { type Duplex, duplexPair } from "node:stream";
import { test } from "node:test";
import { VirtualClock } from "../core/clock.ts";
import type { Exchange, HttpCall, ResponseHead } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import { createHttpProtocol } from "./http.ts";
import { requestHeaders, responseHeaders } from "./http-headers.ts";
import type { Link, LinkResponder, Specialisation } from "./protocol.ts";

const specialisation: Specialisation = {
  codePath: "/code",
  handler: "server",
  handlerModel: "auto",
  environment: {},
  function: { namespace: "default", package: "", name: "x", version: 1 },
  memoryBytesMax: 1,
  timeoutMs: 1_000,
  instanceConcurrency: 1,
  adapters: [],
  program: { command: [], port: 8080, readyPath: null, codeFolder: null },
};

const plainCall: HttpCall = {
  kind: "http",
  method: "GET",
  url: "/",
  headers: ["Host", "shop.test"],
  basePath: "/fn/x",
  origin: "http://shop.test",
  remoteAddress: "10.0.0.9",
};

/** The program's end of a link, played by the test. */
class Scene {
  readonly clock = new VirtualClock();
  readonly link: Link;
  /** The program's ends of its connections, in order. */
  readonly connections: Duplex[] = [];
  end: () => void = () => {};

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.end = resolve;
    const channel = duplexPair()[0];
    const connect = async (): Promise<Duplex> => {
      const [ours, theirs] = duplexPair();
      theirs.on("error", () => {});
      this.connections.push(theirs);
      return ours;
    };
    const reach = { channel, ended: promise, connect };
    this.link = createHttpProtocol({ clock: this.clock }).connect(reach, { log: () => {}, closed: () => {} });
  }

  static async ready(): Promise<Scene> {
    const scene = new Scene();
    await scene.link.specialise(specialisation, AbortSignal.timeout(1_000));
    return scene;
  }

  /** The connection that the next request comes by, once it has come. */
  async request(index: number): Promise<{ readonly connection: Duplex; readonly head: string }> {
    while (this.connections.length <= index) await turn();
    const connection = this.connections[index];
    assert.ok(connection !== undefined);
    let head = "";
    while (!head.includes("\r\n\r\n")) {
      const part: Buffer | null = connection.read();
      if (part === null) await turn();
      else head += part.toString();
    }
    return { connection, head };
  }

  call(call: Partial<HttpCall> = {}): Ends {
    const ends = new Ends();
    const invocation = { id: "an-id", attempt: 1, deadlineMs: 0, body: Buffer.alloc(0), bodyComplete: true };
    ends.exchange = this.link.invoke({ ...invocation, call: { ...plainCall, ...call } }, ends);
    return ends;
  }
}

class Ends implements LinkResponder {
  exchange: Exchange = { write: () => true, end() {}, resume() {}, cancel() {} };
  status = 0;
  text = "";
  ending = "";

  head(head: ResponseHead): void {
    this.status = head.status;
  }
  body(chunk: Buffer): boolean {
    this.text += chunk.toString();
    return true;
  }
  drained(): void {}
  bodyEnded(): void {}
  succeeded(): void {
    this.ending += "succeeded";
  }
  failed({ code }: { readonly code: string }): void {
    this.ending += code;
  }
  lost(): void {
    this.ending += "lost";
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await turn();
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function switched(scene: Scene): Promise<{ readonly ends: Ends; readonly connection: Duplex }> {
  const ends = scene.call({ upgrade: "websocket" });
  const { connection, head } = await scene.request(1);
  assert.match(head, /\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n/);
  connection.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome");
  await ends.until(() => ends.text === "welcome");
  assert.equal(ends.status, 101);
  return { ends, connection };
}

test("after a switch of protocols bytes go both ways until the program ends the connection", async () => {
  const scene = await Scene.ready();
  const { ends, connection } = await switched(scene);
  ends.exchange.write(Buffer.from("hello"));
  let said = "";
  connection.on("data", (part: Buffer) => (said += part.toString()));
  await ends.until(() => said === "hello");
  assert.equal(ends.ending, "");
  connection.end("bye");
  await ends.until(() => ends.ending !== "");
  assert.deepEqual([ends.ending, ends.text], ["succeeded", "welcomebye"]);
});

test("a switched connection on which nothing moves is ended after its time, and not before", async () => {
  const scene = await Scene.ready();
  const { ends } = await switched(scene);
  await scene.clock.advance(limits.upgradedIdleMsMax - 1);
  ends.exchange.write(Buffer.from("still there"));
  await scene.clock.advance(limits.upgradedIdleMsMax - 1);
  assert.equal(ends.ending, "");
  await scene.clock.advance(2);
  assert.equal(ends.ending, "succeeded");
});

test("a switched connection that is always in use is ended after the longest time", async () => {
  const scene = await Scene.ready();
  const { ends } = await switched(scene);
  for (let passedMs = 0; passedMs < limits.upgradedMsMax - 60_000; passedMs += 60_000) {
    ends.exchange.write(Buffer.from("."));
    await scene.clock.advance(60_000);
  }
  assert.equal(ends.ending, "");
  await scene.clock.advance(60_000);
  assert.equal(ends.ending, "succeeded");
});

test("the end of the program loses what is under way, switched or not", async () => {
  const scene = await Scene.ready();
  const { ends } = await switched(scene);
  const waiting = scene.call();
  await scene.request(2);
  scene.end();
  await waiting.until(() => waiting.ending !== "");
  assert.deepEqual([ends.ending, waiting.ending], ["lost", "lost"]);
  const late = scene.call();
  await late.until(() => late.ending !== "");
  assert.equal(late.ending, "lost");
});

test("a kept connection that breaks under a request that can be repeated is no error, once", async () => {
  const scene = await Scene.ready();
  const first = scene.call();
  const { connection } = await scene.request(1);
  connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  await first.until(() => first.ending !== "");
  await turn();
  await turn();
  await turn();
  const repeated = scene.call();
  await scene.request(1);
  connection.destroy();
  const again = await scene.request(2);
  again.connection.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain");
  await repeated.until(() => repeated.ending !== "");
  assert.deepEqual([repeated.ending, repeated.text], ["succeeded", "again"]);
});

test("a request keeps what its client said, and loses what belongs to the connection", () => {
  const call = {
    ...plainCall,
    headers: ["Connection", "close, X-Mine", "X-Mine", "1", "Expect", "100-continue", "A", "b"],
  };
  const sent = requestHeaders(call, { lengthBytes: 0, invocationId: "id" });
  const names = sent.filter((_, index) => index % 2 === 0);
  assert.deepEqual(names, [
    "A",
    "Host",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "X-Request-Id",
  ]);
  const chunked = { ...plainCall, headers: ["Transfer-Encoding", "chunked", "Content-Length", "5"] };
  const framed = requestHeaders(chunked, { lengthBytes: null, invocationId: "id" }).slice(-2);
  assert.deepEqual(framed, ["Transfer-Encoding", "chunked"]);
});

test("an answer loses what belongs to its connection, and what that names", () => {
  const raw = ["Connection", "X-Hop", "X-Hop", "1", "Keep-Alive", "timeout=5", "Content-Length", "3", "X-Kept", "2"];
  assert.deepEqual(responseHeaders(raw, undefined), ["Content-Length", "3", "X-Kept", "2"]);
});
