import { syncBuiltinESMExports } from "node:module";
import threads from "node:worker_threads";

// Loaded into a platform by its test: on SIGUSR2 the thread of its database ends, as after a defect of the database.
const { Worker } = threads;
threads.Worker = class extends Worker {
  /** @param {string | URL} file @param {import("node:worker_threads").WorkerOptions} [options] */
  constructor(file, options) {
    super(file, options);
    if (options?.name === "store durable") process.once("SIGUSR2", () => void this.terminate());
  }
};
syncBuiltinESMExports();
