import { nodeRequest, next, start } from "../conformance.ts";
import { descendantsOf } from "../tree.ts";
import { openProcessDriver } from "./driver.ts";

// A platform that starts a sandbox, prints the process ids, and waits to be killed.
const [directory = "", tag = "", privateMounts] = process.argv.slice(2);
const driver = await openProcessDriver({
  directory,
  tag,
  privateMounts: privateMounts === "1",
  logger: { log: () => {} },
});
const sandbox = await start(driver, nodeRequest(`channel.write("up"); setInterval(() => {}, 1000);`));
await next(sandbox.channel);
console.log(descendantsOf(process.pid).join(" "));
