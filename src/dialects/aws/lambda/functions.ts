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
  LambdaRecords,
  newRecord,
  newRevisionId,
  type Snapshot,
} from "./records.ts";
import { chooseRuntime } from "./runtimes.ts";
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

  constructor(platform: Platform, urls: FunctionUrls, sources: CodeSources) {
    this.platform = platform;
    this.urls = urls;
    this.records = new LambdaRecords(platform.parts.store.values);
    this.#sources = sources;
  }

  /** The record of a function; one that was deployed by other means has one made of what the platform knows. Null: there is no such function. */
  async record({ namespace, name }: Pick<FunctionName, "namespace" | "name">): Promise<LambdaRecord | null> {
    const ref = refOf({ namespace, name });
    const { catalogue } = this.platform.parts;
    if (!catalogue.has(ref)) return null;
    const kept = await this.records.find(namespace, name);
    const live = catalogue.resolve(ref);
    if (kept === null) return newRecord(adopted(live), {});
    // A deploy by other means made another version live since.
    return kept.latest.number === live.number ? kept : { ...kept, latest: adopted(live) };
  }

  /** @throws AwsError `ResourceNotFoundException` */
  async find(name: FunctionName, { region }: Pick<CallContext, "region">): Promise<Found> {
    const record = await this.record(name);
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
    if ((await this.records.find(namespace, name)) === null) await this.records.create(namespace, name, found.record);
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
    const latest = await this.#deploy(
      name,
      { configuration: input.configuration, code, reservedConcurrency: null },
      context,
    );
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
    const { latest, reservedConcurrency } = found.record;
    const code = change.code === undefined ? latest.code : await this.#receive(change.code, context);
    const configuration =
      change.configuration === undefined
        ? latest.configuration
        : configurationOf(change.configuration, latest.configuration);
    const next = await this.#deploy(found.name, { configuration, code, reservedConcurrency }, context);
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
    if (newest?.number === latest.number) return newest;
    let made: Snapshot | undefined;
    const ref = refOf(found.name);
    await this.change(found, (record) => {
      made = {
        ...record.latest,
        version: String(record.nextVersion),
        configuration: {
          ...record.latest.configuration,
          ...(options.description === undefined ? {} : { Description: options.description }),
        },
        revisionId: newRevisionId(),
        modifiedAtMs: context.nowMs,
      };
      return { ...record, published: [...record.published, made], nextVersion: record.nextVersion + 1 };
    });
    if (made === undefined) throw new KoineError("internal", { detail: "nothing was published" });
    // Keeps the platform's version from being cleaned away.
    await this.platform.putAlias(ref, pinName(made.version), { version: made.number });
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

  /** Deploys `$LATEST` anew with what the record says now. */
  async redeploy(found: Found, context: CallContext): Promise<void> {
    const { latest, reservedConcurrency } = found.record;
    const { configuration, code } = latest;
    const next = await this.#deploy(found.name, { configuration, code, reservedConcurrency }, context);
    await this.change(found, (record) => ({ ...record, latest: { ...record.latest, number: next.number } }));
  }

  async #deploy(
    name: FunctionName,
    what: { readonly configuration: Configuration; readonly code: Code; readonly reservedConcurrency: number | null },
    context: CallContext,
  ): Promise<Snapshot> {
    const { configuration, code } = what;
    const handler = String(configuration["Handler"] ?? "");
    const launched = chooseRuntime(this.platform.parts.runtimes, {
      runtime: configuration["Runtime"] as string | undefined,
      handler,
      image: code.imageUri,
    });
    const deployed = await this.platform.deploy(
      refOf(name),
      {
        code: code.digest,
        dialect: "aws",
        ...launched,
        ...specOf(configuration),
        reservedConcurrency: what.reservedConcurrency,
      },
      { check: false, live: true, onProgress: () => {}, signal: context.signal },
    );
    return {
      version: LATEST,
      number: deployed.version.number,
      configuration,
      code,
      revisionId: newRevisionId(),
      modifiedAtMs: context.nowMs,
    };
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

function ignoreMissing(thrown: unknown): void {
  if (!(thrown instanceof KoineError) || thrown.code !== "alias-not-found") throw thrown;
}
