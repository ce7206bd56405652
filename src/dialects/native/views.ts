import type {
  ActivationView,
  AliasView,
  AttemptView,
  FunctionView,
  LogView,
  RunView,
  SecretView,
  VersionView,
} from "../../core/api.ts";
import {
  type Alias,
  DEFAULT_NAMESPACE,
  formatFunctionRef,
  type FunctionRecord,
  type Version,
} from "../../core/function.ts";
import type { Activation, Attempt } from "../../core/invocation.ts";
import type { RunState } from "../../platform/async-work.ts";
import type { Platform } from "../../platform/platform.ts";
import type { SecretEntry } from "../../platform/secrets.ts";
import type { StoredLogRecord } from "../../store/store.ts";

/** The platform's values as the API shows them. */
export function functionView(platform: Platform, record: FunctionRecord): FunctionView {
  const { namespace, name, liveVersion, previousVersion, newestVersion, aliases } = record;
  const inPackage = record.package === "" ? name : `${record.package}%2F${name}`;
  const base = namespace === DEFAULT_NAMESPACE ? "/fn/" : `/ns/${namespace}/fn/`;
  return {
    namespace,
    package: record.package,
    name,
    liveVersion,
    previousVersion,
    newestVersion,
    createdAt: rfc3339(record.createdAtMs),
    updatedAt: rfc3339(record.updatedAtMs),
    path: base + inPackage,
    spec: platform.resolve({ namespace, package: record.package, name }).spec,
    aliases: aliases.map(aliasView),
    instances: platform.parts.engine.counts(record),
  };
}

export function versionView(record: FunctionRecord, version: Version): VersionView {
  const { number, specDigest, spec } = version;
  const points = (alias: Alias): boolean => alias.version === number || alias.additional?.version === number;
  return {
    number,
    live: record.liveVersion === number,
    aliases: record.aliases.filter(points).map((alias) => alias.name),
    createdAt: rfc3339(version.createdAtMs),
    specDigest,
    spec,
  };
}

export function aliasView(alias: Alias): AliasView {
  const { updatedAtMs, ...rest } = alias;
  return { ...rest, updatedAt: rfc3339(updatedAtMs) };
}

export function activationView(activation: Activation): ActivationView {
  const { startedAtMs, ...rest } = activation;
  return { ...rest, startedAt: rfc3339(startedAtMs) };
}

export function attemptView({ startedAtMs, endedAtMs, ...rest }: Attempt): AttemptView {
  return { ...rest, startedAt: rfc3339(startedAtMs), endedAt: rfc3339(endedAtMs) };
}

export function runView(activation: Activation, { attempts, queued, isDead }: RunState): RunView {
  return {
    ...activationView(activation),
    attempts: attempts.map(attemptView),
    queued: queued === null ? null : { running: queued.leased, dueAt: rfc3339(queued.item.dueAtMs) },
    deadLetter: isDead,
  };
}

export function logView(record: StoredLogRecord): LogView {
  const { sequence, version, activationId, instanceId, stream, line } = record;
  const ref = { namespace: record.namespace, package: record.package, name: record.name };
  return {
    sequence,
    time: rfc3339(record.timeMs),
    function: formatFunctionRef(ref),
    version,
    activationId,
    instanceId,
    stream,
    line,
  };
}

export function secretView(entry: SecretEntry): SecretView {
  return { name: entry.name, createdAt: rfc3339(entry.createdAtMs), updatedAt: rfc3339(entry.updatedAtMs) };
}

export function rfc3339(ms: number): string {
  return new Date(ms).toISOString();
}
