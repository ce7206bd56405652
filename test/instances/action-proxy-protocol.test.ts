import { createActionProxyProtocol } from "../../src/protocols/action-proxy.ts";
import { protocolConformance } from "../../src/protocols/conformance.ts";
import { programProcesses } from "./program-process.ts";

const protocol = createActionProxyProtocol();

const files = {
  "main.mjs": `
    import { createServer } from "node:http";
    import { text } from "node:stream/consumers";
    createServer(async (request, response) => {
      const { value } = JSON.parse(await text(request));
      if (request.url === "/init") return response.end('{"ok":true}');
      if (value.__ow_path === "/exit") process.exit(3);
      if (value.__ow_path === "/wait") return;
      const headers = { "x-tag": value.__ow_headers["x-tag"] ?? "", "content-type": "text/plain" };
      const body = Buffer.from(value.__ow_body ?? "", "base64").toString();
      response.end(JSON.stringify({ statusCode: 201, headers, body }));
      console.log("XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX");
      console.error("XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX");
    }).listen(process.env.PORT, "127.0.0.1");`,
};

protocolConformance("action-proxy with Node", protocol, programProcesses(protocol, files), {
  handlers: false,
  streams: false,
  cancels: true,
  closesProcess: false,
  oneProcess: true,
  concurrency: 50,
});
