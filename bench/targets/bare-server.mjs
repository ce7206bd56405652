// What everything is compared with: a node:http server that does what the function does, and nothing else.
import { createServer } from "node:http";

const server = createServer((incoming, response) => {
  if (incoming.method !== "POST") {
    response.writeHead(200, { "Content-Type": "text/plain;charset=UTF-8", "Content-Length": 14 });
    response.end("Hello, world!\n");
    return;
  }
  /** @type {Buffer[]} */
  const chunks = [];
  incoming.on("data", (chunk) => chunks.push(chunk));
  incoming.on("end", () => {
    const text = JSON.stringify(JSON.parse(Buffer.concat(chunks).toString()));
    response.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
    response.end(text);
  });
});
server.keepAliveTimeout = 600_000;
server.listen(Number(process.env["PORT"]), "127.0.0.1");
