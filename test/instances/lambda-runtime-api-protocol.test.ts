import { runtimeApiWording } from "../../src/dialects/aws/runtime-api.ts";
import { protocolConformance } from "../../src/protocols/conformance.ts";
import { createLambdaRuntimeApi } from "../../src/protocols/lambda-runtime-api.ts";
import { programProcesses } from "./program-process.ts";

const protocol = createLambdaRuntimeApi(runtimeApiWording);

const files = {
  "main.mjs": `
    const base = "http://" + process.env.AWS_LAMBDA_RUNTIME_API + "/2018-06-01/runtime/invocation/";
    for (;;) {
      const next = await fetch(base + "next");
      const id = next.headers.get("lambda-runtime-aws-request-id");
      const event = await next.json();
      if (event.rawPath === "/exit") process.exit(3);
      if (event.rawPath === "/wait") await new Promise(() => setInterval(() => {}, 1000));
      const answer = { statusCode: 201, headers: { "x-tag": event.headers["x-tag"] ?? "" }, body: event.body ?? "" };
      await fetch(base + id + "/response", { method: "POST", body: JSON.stringify(answer) });
    }`,
};

protocolConformance("lambda-runtime-api with Node", protocol, programProcesses(protocol, files), {
  handlers: false,
  streams: false,
  cancels: false,
  closesProcess: false,
  oneProcess: true,
  concurrency: 1,
});
