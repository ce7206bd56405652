import { createFramesProtocol } from "../../src/protocols/frames.ts";
import { protocolConformance } from "../../src/protocols/conformance.ts";
import { startNodeProcess } from "./node-instance.ts";

const files = {
  "index.mjs": `
    export default async function handle(request, context) {
      const url = new URL(request.url);
      switch (url.pathname) {
        case "/echo":
          return new Response(request.body, { status: 201, headers: { "x-tag": request.headers.get("x-tag") ?? "" } });
        case "/large":
          return new Response("x".repeat(Number(url.searchParams.get("bytes"))));
        case "/fail":
          throw new RangeError("broken");
        case "/exit":
          return process.exit(3);
        case "/wait":
          await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
          return new Response("gone");
        case "/log":
          console.log(url.searchParams.get("text"));
          await new Promise((resolve) => setImmediate(resolve));
          console.log(url.searchParams.get("text"));
          return new Response("logged");
        default:
          return new Response("?", { status: 404 });
      }
    }`,
};

protocolConformance("frames with Node", createFramesProtocol(), () => startNodeProcess(files));
