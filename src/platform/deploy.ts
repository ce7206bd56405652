import { KoineError } from "../core/errors.ts";
import { type FunctionRecord, type FunctionRef, isName, type Version } from "../core/function.ts";
import { newId } from "../core/ids.ts";
import { checkDestinations } from "./async-settings.ts";
import { type DeploySource, withCode } from "./deploy-image.ts";
import type { PlatformParts } from "./parts.ts";
import { completeSpec, specDigest } from "./spec.ts";

export interface DeployOptions {
  /** Load the handler once before the version goes live. */
  readonly check: boolean;
  /** Whether the version goes live. */
  readonly live: boolean;
  onProgress(phase: "unpacking" | "installing" | "checking" | "publishing" | "output", message: string): void;
  /** Rejects for topics that are not there. */
  topicExists(namespace: string, topic: string): Promise<unknown>;
  readonly signal: AbortSignal;
}

export interface Deployed {
  readonly change: "created" | "updated" | "unchanged";
  readonly record: FunctionRecord;
  readonly version: Version;
}

/**
 * Makes a new version of a function, and the function if it is new. Nothing of a failed deploy remains, and what was live stays live.
 * @throws KoineError
 */
export async function deploy(
  parts: PlatformParts,
  ref: FunctionRef,
  source: DeploySource,
  options: DeployOptions,
): Promise<Deployed> {
  const { catalogue, packages, runtimes, limits, models, protocols } = parts;
  for (const name of [ref.namespace, ref.name, ...(ref.package === "" ? [] : [ref.package])]) {
    if (!isName(name)) throw new KoineError("invalid-name", { name });
  }
  const request = await withCode(parts, ref, source, options);
  const spec = completeSpec(request, { runtimes, models, protocols, limits });
  parts.engine.checkNetwork(spec);
  return await catalogue.exclusively(ref, async () => {
    if (!catalogue.has(ref) && catalogue.size >= limits.functionsMax) {
      throw new KoineError("limit-exceeded", {
        what: "number of functions",
        value: catalogue.size + 1,
        allowed: `at most ${limits.functionsMax}`,
      });
    }
    await parts.secrets.open(ref.namespace, spec.secrets);
    await checkDestinations({ ...parts, topicExists: options.topicExists }, ref, spec.destinations);
    const digest = specDigest(spec);
    const before = catalogue.has(ref) ? catalogue.record(ref) : null;
    const same = before === null ? undefined : unchangedVersion(parts, ref, before, { digest, live: options.live });
    if (before !== null && same !== undefined) return { change: "unchanged", record: before, version: same };

    if (spec.image === undefined) {
      options.onProgress("unpacking", "unpacking the code");
      await packages.folder(spec.code, options.signal);
    }
    const version: Version = {
      namespace: ref.namespace,
      package: ref.package,
      name: ref.name,
      number: (before?.newestVersion ?? 0) + 1,
      spec,
      specDigest: digest,
      createdAtMs: parts.clock.nowMs(),
    };
    await parts.prepareCode(version, {
      onPhase: (message) => options.onProgress("installing", message),
      onOutput: (line) => options.onProgress("output", line),
      signal: options.signal,
    });
    if (options.check) {
      options.onProgress("checking", "loading the handler");
      await parts.engine.warm(version, options.signal);
    }
    options.onProgress("publishing", `publishing version ${version.number}`);
    // Its first call then finds at hand what it needs.
    await parts.prepareVersion(version, options.signal);
    const record = await publishVersion(parts, before, version, options.live);
    return { change: before === null ? "created" : "updated", record, version };
  });
}

function unchangedVersion(
  parts: PlatformParts,
  ref: FunctionRef,
  record: FunctionRecord,
  wanted: { digest: string; live: boolean },
): Version | undefined {
  const versions = parts.catalogue.versions(ref);
  if (wanted.live)
    return versions.find((version) => version.number === record.liveVersion && version.specDigest === wanted.digest);
  return versions.find((version) => version.specDigest === wanted.digest);
}

async function publishVersion(
  parts: PlatformParts,
  before: FunctionRecord | null,
  version: Version,
  live: boolean,
): Promise<FunctionRecord> {
  const nowMs = version.createdAtMs;
  const goesLive = live || before === null;
  const record: FunctionRecord = {
    namespace: version.namespace,
    package: version.package,
    name: version.name,
    id: before?.id ?? newId(),
    liveVersion: goesLive ? version.number : before.liveVersion,
    previousVersion: goesLive ? (before?.liveVersion ?? null) : (before?.previousVersion ?? null),
    newestVersion: version.number,
    ...(before?.reservedConcurrency === undefined ? {} : { reservedConcurrency: before.reservedConcurrency }),
    aliases: before?.aliases ?? [],
    createdAtMs: before?.createdAtMs ?? nowMs,
    updatedAtMs: nowMs,
  };
  const surplus = before === null ? [] : surplusVersions(parts, record);
  await parts.catalogue.put(record, { add: version, remove: surplus.map((old) => old.number) });
  if (goesLive && before !== null) retireUnreachable(parts, record, before.liveVersion);
  for (const old of surplus) parts.engine.retire(old);
  parts.engine.useRuntimes(parts.catalogue.runtimesInUse((spec) => parts.engine.spareRuntimeOf(spec)));
  return record;
}

/** Version numbers that calls can still reach by name. */
function reachable(record: FunctionRecord): ReadonlySet<number> {
  const numbers = new Set([record.liveVersion]);
  if (record.previousVersion !== null) numbers.add(record.previousVersion);
  for (const alias of record.aliases) {
    numbers.add(alias.version);
    if (alias.additional !== undefined) numbers.add(alias.additional.version);
  }
  return numbers;
}

function surplusVersions(parts: PlatformParts, record: FunctionRecord): readonly Version[] {
  const kept = reachable(record);
  const versions = parts.catalogue.versions(record);
  const excess = versions.length + 1 - parts.limits.versionsPerFunctionMax;
  if (excess <= 0) return [];
  return versions.filter((version) => !kept.has(version.number)).slice(-excess);
}

/** The version that is not live any more needs no instances, unless an alias still sends calls there. */
export function retireUnreachable(parts: PlatformParts, record: FunctionRecord, number: number): void {
  const byAlias = record.aliases.some((alias) => alias.version === number || alias.additional?.version === number);
  if (byAlias || record.liveVersion === number) return;
  const version = parts.catalogue.versions(record).find((other) => other.number === number);
  if (version !== undefined) parts.engine.retire(version);
}
