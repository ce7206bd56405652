import { protocolConformance } from "../../src/protocols/conformance.ts";
import { createHttpProtocol } from "../../src/protocols/http.ts";
import { programProcesses } from "./program-process.ts";

const protocol = createHttpProtocol();

const files = {
  "main.mjs": `
    import { createServer } from "node:http";
    createServer((request, response) => {
      const url = new URL(request.url, "http://localhost");
      switch (url.pathname) {
        case "/echo":
          response.writeHead(201, { "x-tag": request.headers["x-tag"] ?? "" });
          return request.pipe(response);
        case "/large":
          return response.end(Buffer.alloc(Number(url.searchParams.get("bytes")), "x"));
        case "/exit":
          return process.exit(3);
        case "/wait":
          return;
        default:
          response.writeHead(404).end();
      }
    }).listen(process.env.PORT, "127.0.0.1");`,
};

protocolConformance("http with Node", protocol, programProcesses(protocol, files), {
  handlers: false,
  streams: true,
  cancels: true,
  closesProcess: false,
  oneProcess: true,
  concurrency: 300,
});
