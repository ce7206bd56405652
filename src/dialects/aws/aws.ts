import { fileURLToPath } from "node:url";
import type { Platform } from "../../platform/platform.ts";
import type { Sealer } from "../../platform/secrets.ts";
import type { Dialect, HandlerAdapters } from "../dialect.ts";
import { IamAccess } from "./iam/access.ts";
import { IamDirectory } from "./iam/directory.ts";
import { createIam } from "./iam/iam.ts";
import { createSts } from "./sts/sts.ts";
import { AwsEndpoint } from "./wire/serve.ts";

/** Lambda's handler model; the rest of the dialect (its API and events) stands in this folder too. */
export const awsAdapters: HandlerAdapters = {
  folder: fileURLToPath(new URL("handlers", import.meta.url)),
  models: { nodejs: ["lambda"], python: ["lambda"] },
};

/** What SDKs and tools of this cloud speak, at the same address as everything else. A service is a folder and one line here. */
export async function createAwsDialect(platform: Platform, sealer: Sealer): Promise<Dialect> {
  const { clock, store, supervise, logger } = platform.parts;
  const nowMs = (): number => clock.nowMs();
  const directory = await IamDirectory.open(store.values, sealer);
  const access = new IamAccess(directory, sealer, nowMs);
  const services = [createIam({ directory, access }), createSts({ directory, access })];
  const endpoint = new AwsEndpoint({ services, identities: access, policies: access, nowMs, supervise, logger });
  return { name: "aws", adapters: awsAdapters, handle: (request) => endpoint.handle(request) };
}
