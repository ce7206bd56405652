import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createActionProxyProtocol } from "../../src/protocols/action-proxy.ts";
import { createHttpProtocol } from "../../src/protocols/http.ts";
import { createLambdaRuntimeApi } from "../../src/protocols/lambda-runtime-api.ts";
import { runtimeApiWording } from "../../src/dialects/aws/runtime-api.ts";
import { ProgramMachine } from "./program.ts";

/** Programs that answer with whatever comes to mind; the same again for the same seed. */
const NOISE = `
  let seed = SEED;
  const random = (below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed % below;
  };
  const pick = (list) => list[random(list.length)];
  const piece = () => pick([
    "HTTP/1.1 200 OK\\r\\n", "HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n", "HTTP/1.1 100 Continue\\r\\n\\r\\n",
    "HTTP/9.9 200 OK\\r\\n", "HTTP/1.1 999 \\r\\n", "HTTP/1.1 -1 x\\r\\n", "Content-Length: 5\\r\\n", "Content-Length: -5\\r\\n", "Content-Length: 99999999999999999999\\r\\n",
    "Transfer-Encoding: chunked\\r\\n", "Transfer-Encoding: gzip, chunked\\r\\n", "Connection: close\\r\\n", "\\r\\n", "\\r\\n\\r\\n", "hello", "5\\r\\nhello\\r\\n", "ffffffffffffffff\\r\\n", "0\\r\\n\\r\\n",
    "X: " + "y".repeat(random(100000)) + "\\r\\n", "\\u0000\\u0001\\u00ff", ": no name\\r\\n", "Na me: x\\r\\n", "Set-Cookie: a\\r\\n".repeat(random(300)), '{"ok":true}', '{"statusCode":"x"}', "Trailer: x\\r\\n",
  ]);
  const noise = () => Array.from({ length: 1 + random(8) }, piece).join("");`;

const SERVER = `${NOISE}
  import { createServer } from "node:net";
  createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      if (String(bytes).includes("/init")) return socket.write('HTTP/1.1 200 OK\\r\\nContent-Length: 11\\r\\n\\r\\n{"ok":true}');
      if (String(bytes).includes("/honest")) return socket.end("HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\n{\\"a\\":1}".replace("6", "7"));
      for (let count = random(4); count >= 0; count--) socket.write(noise(), "latin1");
      if (random(3) > 0) socket.end();
      else if (random(2) === 0) socket.resetAndDestroy();
    });
  }).listen(8080, "127.0.0.1");`;

const CLIENT = `${NOISE}
  import { connect } from "node:net";
  const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
  const BASE = "/2018-06-01/runtime/";
  const send = (bytes) => new Promise((resolve) => {
    const socket = connect(Number(port), host);
    let text = "";
    socket.setTimeout(200, () => socket.destroy());
    socket.on("error", () => {}).on("data", (part) => (text += part)).on("close", () => resolve(text));
    socket.write(bytes, "latin1");
  });
  const ask = (method, path, body = "") => send(method + " " + BASE + path + " HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: " + body.length + "\\r\\n\\r\\n" + body);
  for (;;) {
    const answer = await ask("GET", "invocation/next");
    const id = /request-id: (\\S+)/i.exec(answer)?.[1];
    for (let count = random(4); count > 0; count--) {
      const path = pick(["invocation/next", "invocation/" + id + "/response", "invocation/" + id + "/error", "invocation/x/response", "init/error", "%00", "..", "invocation//response"]);
      const mode = pick(["", "Lambda-Runtime-Function-Response-Mode: streaming\\r\\n", "Lambda-Runtime-Function-Response-Mode: odd\\r\\n"]);
      await send(pick(["POST ", "GET ", "PUT ", "\\u0000"]) + BASE + path + " HTTP/1.1\\r\\nHost: x\\r\\n" + mode + noise());
    }
    if (id !== undefined) await ask("POST", "invocation/" + id + "/response", pick(['{"statusCode":200}', "[", "null", '{"statusCode":7}', noise()]));
  }`;

describe("programs that mean no good", { timeout: 300_000 }, () => {
  let machine: ProgramMachine;
  before(async () => {
    machine = await ProgramMachine.open([
      createHttpProtocol(),
      createActionProxyProtocol(),
      createLambdaRuntimeApi(runtimeApiWording),
    ]);
  });
  after(() => machine[Symbol.asyncDispose]());

  for (const [protocol, source] of [
    ["http", SERVER],
    ["action-proxy", SERVER],
    ["lambda-runtime-api", CLIENT],
  ] as const) {
    test(`whatever a program answers by ${protocol}, every call ends, and the neighbour's calls are right`, async () => {
      const spec = { runtime: "nodejs26.x", protocol, command: ["node", "main.mjs"], timeoutMs: 700 };
      const odd = await machine.deploy(
        { "main.mjs": source.replace("SEED", "7") },
        { ...spec, instanceConcurrency: 4 },
      );
      const honest = await machine.deploy(
        {
          "main.mjs": `import { createServer } from "node:http";
            createServer((request, response) => response.end(request.url)).listen(8080, "127.0.0.1");`,
        },
        { ...spec, protocol: "http", timeoutMs: 10_000 },
      );
      for (let round = 0; round < 40; round++) {
        const upgrade = round % 5 === 0 ? { upgrade: "websocket" } : {};
        const odds = [1, 2, 3].map((each) => machine.call(odd, { url: `/${round}/${each}`, ...upgrade }));
        const right = machine.call(honest, { url: `/right/${round}` });
        assert.equal(await right.result, "succeeded", await right.message);
        assert.equal(right.text, `/right/${round}`);
        for (const each of odds) {
          // Connections that were upgraded live as long as somebody wants them.
          if (upgrade.upgrade !== undefined) await each.until(() => each.status !== null || each.figures !== null);
          if (each.status === 101) each.exchange.cancel();
          await each.outcome;
        }
      }
      assert.deepEqual(machine.unsupervised, []);
    });
  }
});
