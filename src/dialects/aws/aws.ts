import { fileURLToPath } from "node:url";
import type { Platform } from "../../platform/platform.ts";
import type { Sealer } from "../../platform/secrets.ts";
import type { Dialect, HandlerAdapters } from "../dialect.ts";
import { IamAccess } from "./iam/access.ts";
import { IamDirectory } from "./iam/directory.ts";
import { createIam } from "./iam/iam.ts";
import { Archives } from "./lambda/archives.ts";
import { LambdaFunctions } from "./lambda/functions.ts";
import { createLambda } from "./lambda/lambda.ts";
import { lambdaSurroundings } from "./lambda/surroundings.ts";
import { Outcomes } from "./lambda/outcomes.ts";
import { ProvisionedConcurrency } from "./lambda/provisioned.ts";
import { LambdaRecords, LATEST } from "./lambda/records.ts";
import { Layers } from "./lambda/layers.ts";
import { UrlCalls } from "./lambda/url-calls.ts";
import { FunctionUrls } from "./lambda/urls.ts";
import type { CodeLocation } from "./lambda/operations/functions.ts";
import { LogGroups } from "./logs/groups.ts";
import { LogLines } from "./logs/lines.ts";
import { createLogs } from "./logs/logs.ts";
import { Pollers } from "./mappings/pollers.ts";
import { Mappings } from "./mappings/records.ts";
import { createMonitoring } from "./monitoring/monitoring.ts";
import { Queues } from "./sqs/queues.ts";
import { createSqs } from "./sqs/sqs.ts";
import { createSts } from "./sts/sts.ts";
import { AwsEndpoint } from "./wire/serve.ts";

/** Lambda's handler model; the rest of the dialect (its API and events) stands in this folder too. */
export const awsAdapters: HandlerAdapters = {
  folder: fileURLToPath(new URL("handlers", import.meta.url)),
  models: { nodejs: ["lambda"], python: ["lambda"] },
};

/** Where local stand-ins for this cloud have always been. */
const EMULATOR_PORT = 4_566;

/** What SDKs and tools of this cloud speak, at the same address as everything else. A service is a folder and one line here. */
export async function createAwsDialect(platform: Platform, sealer: Sealer): Promise<Dialect> {
  const { clock, store, packages, supervise, logger } = platform.parts;
  const nowMs = (): number => clock.nowMs();
  const directory = await IamDirectory.open(store.values, sealer);
  const access = new IamAccess(directory, sealer, nowMs);
  const archives = new Archives(store.blobs, sealer, nowMs);
  // An object store of this dialect would be another source of code.
  const layers = new Layers(store.values, packages);
  platform.packageHolders.push(() => layers.digests());
  const records = await LambdaRecords.open(store.values);
  const provisioned = new ProvisionedConcurrency(platform, records);
  const urlConfigs = await FunctionUrls.open(store.values);
  const functions = new LambdaFunctions(platform, {
    records,
    urls: urlConfigs,
    layers,
    sources: { object: async () => null },
  });
  const queues = await Queues.open({ values: store.values, clock, supervise });
  const outcomes = new Outcomes(functions, queues);
  const mappings = await Mappings.open(store.values);
  const pollers = new Pollers(mappings, queues, functions);
  const locate: CodeLocation = (digest, { request }) => archives.locate(digest, request.headers.origin);
  const services = [
    createLambda({ functions, provisioned, outcomes, layers, mappings, queues, locate }),
    createIam({ directory, access }),
    createSts({ directory, access }),
    createSqs(queues),
    createMonitoring(platform),
    createLogs(new LogGroups(store.values), new LogLines(platform, versionsIn(functions))),
  ];
  const endpoint = new AwsEndpoint({ services, identities: access, policies: access, nowMs, supervise, logger });
  const urls = new UrlCalls({ functions, endpoint, policies: access, configured: () => access.configured });
  return {
    name: "aws",
    adapters: awsAdapters,
    usualPort: EMULATOR_PORT,
    handleForeign: (request, identify) => urls.handle(request, identify),
    surroundings: lambdaSurroundings({ platform, access, handle: (request) => endpoint.handle(request) }),
    handle: (request) => archives.handle(request, supervise) || endpoint.handle(request),
    start: () => {
      provisioned.start(records);
      pollers.start();
    },
    close: async () => await pollers.close(),
  };
}

/** How the API numbers a version of the platform: `$LATEST` unless it was published. */
function versionsIn(functions: LambdaFunctions) {
  return async (namespace: string, name: string, number: number): Promise<string> => {
    const record = functions.records.find(namespace, name);
    return record?.published.find((each) => each.number === number)?.version ?? LATEST;
  };
}
