import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { KoineError } from "../../../core/errors.ts";
import type { FunctionRef, Version } from "../../../core/function.ts";
import type { Platform } from "../../../platform/platform.ts";
import { AwsError } from "../wire/error.ts";
import type { CallContext } from "../wire/service.ts";
import { adopted, configurationOf, specOf } from "./configuration.ts";
import { type FunctionName, functionArn, invalid, notFound } from "./names.ts";
import {
  type Code,
  type Configuration,
  LATEST,
  type LambdaRecord,
  type LambdaRecords,
  newRecord,
  newRevisionId,
  type Snapshot,
} from "./records.ts";
import type { Layers, UsedLayer } from "./layers.ts";
import { placedLaunch } from "./launches.ts";
import { chooseRuntime } from "./runtimes.ts";
import { annotationsOf, type LambdaSettings, loggingOf } from "./settings.ts";
import type { FunctionUrls } from "./urls.ts";

/** How code is given: an archive, or where one is. */
export interface CodeInput {
  readonly ZipFile?: string | undefined;
  readonly S3Bucket?: string | undefined;
  readonly S3Key?: string | undefined;
  readonly S3ObjectVersion?: string | undefined;
  readonly ImageUri?: string | undefined;
}

/** Where archives that are named instead of sent come from. */
export interface CodeSources {
  /** The bytes of an object; null: there is no such store here. @throws AwsError `InvalidParameterValueException` */
  object(bucket: string, key: string, version: string | undefined): Promise<Buffer | null>;
}

/** A function as one call sees it: with the snapshot that its qualifier means. */
export interface Found {
  readonly name: FunctionName;
  readonly record: LambdaRecord;
  readonly snapshot: Snapshot;
  /** The alias that was named; null: a version, or nothing. */
  readonly alias: LambdaRecord["aliases"][number] | null;
}

/** Functions in the terms of the API, kept as the platform's functions and versions, each with a record of what only the API knows. */
export class LambdaFunctions {
  readonly platform: Platform;
  readonly records: LambdaRecords;
  readonly urls: FunctionUrls;
  readonly #sources: CodeSources;
  readonly #layers: Layers;

  constructor(
    platform: Platform,
    {
      records,
      urls,
      sources,
      layers,
    }: {
      readonly records: LambdaRecords;
      readonly urls: FunctionUrls;
      readonly sources: CodeSources;
      readonly layers: Layers;
    },
  ) {
    this.platform = platform;
    this.#layers = layers;
    this.urls = urls;
    this.records = records;
    this.#sources = sources;
  }

  /** The record of a function; one that was deployed by other means has one made of what the platform knows. Null: there is no such function. */
  record({ namespace, name }: Pick<FunctionName, "namespace" | "name">): LambdaRecord | null {
    const ref = refOf({ namespace, name });
    const { catalogue } = this.platform.parts;
    if (!catalogue.has(ref)) return null;
    const kept = this.records.find(namespace, name);
    const live = catalogue.resolve(ref);
    if (kept === null) return newRecord(adopted(live), {});
    // A deploy by other means made another version live since.
    return kept.latest.number === live.number ? kept : { ...kept, latest: adopted(live) };
  }

  /** @throws AwsError `ResourceNotFoundException` */
  async find(name: FunctionName, of: Pick<CallContext, "region">): Promise<Found> {
    return this.findNow(name, of);
  }

  /** @throws AwsError `ResourceNotFoundException` */
  findNow(name: FunctionName, { region }: Pick<CallContext, "region">): Found {
    const record = this.record(name);
    if (record === null) throw notFound(name, region);
    const { qualifier } = name;
    if (qualifier === null || qualifier === LATEST) return { name, record, snapshot: record.latest, alias: null };
    const alias = record.aliases.find((each) => each.name === qualifier) ?? null;
    const version = alias?.version ?? qualifier;
    const snapshot = version === LATEST ? record.latest : record.published.find((each) => each.version === version);
    if (snapshot === undefined) throw notFound(name, region);
    return { name, record, snapshot, alias };
  }

  /** Changes the record, which is made now for a function that has none yet. */
  async change(found: Found, by: (record: LambdaRecord) => LambdaRecord): Promise<LambdaRecord> {
    const { namespace, name } = found.name;
    if (this.records.find(namespace, name) === null) await this.records.create(namespace, name, found.record);
    return await this.records.change(namespace, name, by);
  }

  /** @throws AwsError `ResourceConflictException`, `InvalidParameterValueException` */
  async create(
    name: FunctionName,
    input: {
      readonly configuration: Configuration;
      readonly code: CodeInput;
      readonly tags: Readonly<Record<string, string>>;
    },
    context: CallContext,
  ): Promise<LambdaRecord> {
    const { namespace } = name;
    if (this.platform.parts.catalogue.has(refOf(name)))
      throw new AwsError("ResourceConflictException", `Function already exist: ${name.name}`, { status: 409 });
    const code = await this.#receive(input.code, context);
    const latest = await this.#deploy(name, { configuration: input.configuration, code, layers: [] }, context);
    const record = newRecord(latest, input.tags);
    // What an earlier function of this name left means nothing to this one.
    await this.records.remove(namespace, name.name);
    await this.records.create(namespace, name.name, record);
    return record;
  }

  /** Changes `$LATEST`: its code, its configuration, or both. */
  async update(
    found: Found,
    change: {
      readonly configuration?: Configuration;
      readonly code?: CodeInput;
      readonly revisionId: string | undefined;
    },
    context: CallContext,
  ): Promise<LambdaRecord> {
    checkRevision(found.record.latest.revisionId, change.revisionId);
    const { latest } = found.record;
    const code = change.code === undefined ? latest.code : await this.#receive(change.code, context);
    const configuration =
      change.configuration === undefined
        ? latest.configuration
        : configurationOf(change.configuration, latest.configuration);
    const layers = latest.layers ?? [];
    const next = await this.#deploy(found.name, { configuration, code, layers }, context);
    for (const alias of found.record.aliases)
      if (alias.version === LATEST)
        await this.platform.putAlias(refOf(found.name), alias.name, { version: next.number });
    return await this.change(found, (record) => ({ ...record, latest: next }));
  }

  /** Makes an immutable version of `$LATEST`; the newest one again when nothing changed since. */
  async publish(
    found: Found,
    options: {
      readonly description: string | undefined;
      readonly codeSha256: string | undefined;
      readonly revisionId: string | undefined;
    },
    context: CallContext,
  ): Promise<Snapshot> {
    const { latest, published } = found.record;
    checkRevision(latest.revisionId, options.revisionId);
    if (options.codeSha256 !== undefined && options.codeSha256 !== latest.code.sha256)
      throw invalid(
        `CodeSHA256 (${options.codeSha256}) is different from current CodeSHA256 in $LATEST (${latest.code.sha256}). Please try again with the CodeSHA256 in $LATEST.`,
      );
    const newest = published.at(-1);
    if (newest !== undefined && (newest.publishedFrom ?? newest.number) === latest.number) return newest;
    const { nextVersion } = found.record;
    const { code, layers = [] } = latest;
    const described = options.description === undefined ? {} : { Description: options.description };
    const configuration = { ...latest.configuration, ...described };
    const what = { configuration, code, layers, version: String(nextVersion) };
    const made = { ...(await this.#deploy(found.name, what, context)), publishedFrom: latest.number };
    // Keeps the platform's version from being cleaned away.
    await this.platform.putAlias(refOf(found.name), pinName(made.version), { version: made.number });
    await this.change(found, (record) => {
      if (record.nextVersion !== nextVersion)
        throw new AwsError(
          "ResourceConflictException",
          `The operation cannot be performed at this time. An update is in progress for resource: ${found.name.name}`,
          { status: 409 },
        );
      return { ...record, published: [...record.published, made], nextVersion: nextVersion + 1 };
    });
    return made;
  }

  async delete(found: Found): Promise<void> {
    const { namespace, name, qualifier } = found.name;
    if (qualifier === null) {
      await this.platform.deleteFunction(refOf(found.name));
      for (const { urlId } of Object.values(found.record.urls)) await this.urls.remove(urlId);
      await this.records.remove(namespace, name);
      return;
    }
    if (qualifier === LATEST) throw invalid("$LATEST version cannot be deleted without deleting the function.");
    const users = found.record.aliases.filter(
      (alias) => alias.version === qualifier || alias.weights[qualifier] !== undefined,
    );
    if (users.length > 0)
      throw new AwsError(
        "ResourceConflictException",
        `Aliases (${users.map((alias) => alias.name).join(", ")}) point to version ${qualifier} and cannot be deleted.`,
        {
          status: 409,
        },
      );
    await this.change(found, (record) => ({
      ...record,
      published: record.published.filter(({ version }) => version !== qualifier),
    }));
    await this.platform.deleteAlias(refOf(found.name), pinName(qualifier)).catch(ignoreMissing);
  }

  async #deploy(
    name: FunctionName,
    what: {
      readonly configuration: Configuration;
      readonly code: Code;
      /** Those it had before: they are there still when the layer is deleted. */
      readonly layers: readonly UsedLayer[];
      /** The number under which it is published; absent: it becomes `$LATEST`. */
      readonly version?: string;
    },
    context: CallContext,
  ): Promise<Snapshot> {
    const { configuration, code, version = LATEST } = what;
    const layers = await this.#layersOf(configuration, what.layers, context);
    const settings: LambdaSettings = {
      version,
      region: context.region,
      runtime: String(configuration["Runtime"] ?? ""),
      role: String(configuration["Role"] ?? ""),
      layers: layers.map(({ digest }) => digest),
      logging: loggingOf(configuration),
    };
    const handler = String(configuration["Handler"] ?? "");
    const { packages, runtimes } = this.platform.parts;
    const chosen = chooseRuntime(runtimes, {
      runtime: configuration["Runtime"] as string | undefined,
      handler,
      image: code.imageUri,
    });
    const launched =
      code.imageUri === undefined
        ? await placedLaunch(chosen, {
            code: await packages.folder(code.digest, context.signal),
            layers: layers.length === 0 ? null : await packages.overlaid(settings.layers, context.signal),
          })
        : chosen;
    const deployed = await this.platform.deploy(
      refOf(name),
      {
        code: code.digest,
        dialect: "aws",
        ...launched,
        ...specOf(configuration),
        annotations: annotationsOf(settings),
      },
      { check: false, live: version === LATEST, onProgress: () => {}, signal: context.signal },
    );
    return {
      version,
      ...(layers.length === 0 ? {} : { layers }),
      number: deployed.version.number,
      configuration,
      code,
      revisionId: newRevisionId(),
      modifiedAtMs: context.nowMs,
    };
  }

  async #layersOf(
    configuration: Configuration,
    before: readonly UsedLayer[],
    context: CallContext,
  ): Promise<readonly UsedLayer[]> {
    const arns = (configuration["Layers"] ?? []) as readonly string[];
    const known = new Map(before.map((used) => [used.arn, used]));
    const resolved = await this.#layers.resolve(
      arns.filter((arn) => !known.has(arn)),
      context,
    );
    for (const used of resolved) known.set(used.arn, used);
    return arns.flatMap((arn) => known.get(arn) ?? []);
  }

  async #receive(input: CodeInput, context: CallContext): Promise<Code> {
    if (input.ImageUri !== undefined)
      return { packageType: "Image", sha256: "", size: 0, digest: "", imageUri: input.ImageUri };
    const archive = await this.#archive(input);
    if (archive.length === 0) throw invalid("Uploaded file must be a non-empty zip");
    try {
      const { digest } = await this.platform.parts.packages.receive(Readable.from([archive]), context.signal);
      const sha256 = createHash("sha256").update(archive).digest("base64");
      return { packageType: "Zip", sha256, size: archive.length, digest };
    } catch (thrown) {
      if (!(thrown instanceof KoineError) || thrown.fault !== "caller") throw thrown;
      if (thrown.code === "invalid-package")
        throw new AwsError(
          "InvalidParameterValueException",
          `Could not unzip uploaded file. Please check your file, then try to upload again. (${thrown.message})`,
          {
            cause: thrown,
          },
        );
      throw new AwsError("InvalidParameterValueException", thrown.message, { cause: thrown });
    }
  }

  async #archive(input: CodeInput): Promise<Buffer> {
    if (input.ZipFile !== undefined) return Buffer.from(input.ZipFile, "base64");
    if (input.S3Bucket === undefined || input.S3Key === undefined)
      throw invalid("Please provide a source for function code.");
    const found = await this.#sources.object(input.S3Bucket, input.S3Key, input.S3ObjectVersion);
    if (found !== null) return found;
    throw invalid(
      `Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: there is no object store here that holds '${input.S3Bucket}'; send the archive itself as ZipFile`,
    );
  }
}

/** A function's address on the platform: those of this API have no package. */
export function refOf({ namespace, name }: Pick<FunctionName, "namespace" | "name">): FunctionRef {
  return { namespace, package: "", name };
}

/** The platform's alias that keeps a published version; no alias of the API can have this name. */
export function pinName(version: string): string {
  return `aws.v${version}`;
}

export function versionOf(platform: Platform, found: Found): Version {
  return platform.resolve({ ...refOf(found.name), qualifier: String(found.snapshot.number) });
}

/** @throws AwsError `PreconditionFailedException` */
export function checkRevision(current: string, given: string | undefined): void {
  if (given === undefined || given === current) return;
  throw new AwsError(
    "PreconditionFailedException",
    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
    { status: 412 },
  );
}

export function arnOfFound({ name, snapshot, alias }: Found, region: string): string {
  return functionArn(name.namespace, name.name, { region, qualifier: alias?.name ?? snapshot.version });
}

/** For what removes an alias that may be gone already. */
export function ignoreMissing(thrown: unknown): void {
  if (!(thrown instanceof KoineError) || thrown.code !== "alias-not-found") throw thrown;
}
