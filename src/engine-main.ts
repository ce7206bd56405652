import { serveFurtherEngine } from "./further-engine.ts";

// The program of a further engine, started by the first one's process with two pairs of sockets and nothing else.
await serveFurtherEngine();
process.exit(0);
