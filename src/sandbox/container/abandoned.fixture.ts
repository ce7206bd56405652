import { testLimits } from "../conformance.ts";
import { openContainerDriver } from "./driver.ts";

// A platform that starts a container, says so, and waits to be killed.
const [address = "", tag = "", directory = "", image = ""] = process.argv.slice(2);
const driver = await openContainerDriver({ address, tag, directory, aheadMax: 0 });
const command = ["sleep", "1000"];
const request = { id: "abandoned", command, environment: {}, mounts: [], limits: testLimits, image };
await driver.create({ ...request, network: "none" }, AbortSignal.timeout(20_000));
console.log("up");
setInterval(() => {}, 1_000);
