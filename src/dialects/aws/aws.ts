import { fileURLToPath } from "node:url";
import type { HandlerAdapters } from "../dialect.ts";

/** Lambda's handler model; the rest of the dialect (its API and events) stands in this folder too. */
export const awsAdapters: HandlerAdapters = {
  folder: fileURLToPath(new URL("handlers", import.meta.url)),
  models: { nodejs: ["lambda"], python: ["lambda"] },
};
