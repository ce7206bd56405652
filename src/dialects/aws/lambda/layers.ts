import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type { CodePackages } from "../../../platform/packages.ts";
import type { Values } from "../../../store/store.ts";
import { AwsError } from "../wire/error.ts";
import type { CallContext } from "../wire/service.ts";
import type { PolicyStatement } from "./records.ts";

/** A version of a layer: an archive that functions find unpacked at /opt. */
export interface LayerVersion {
  readonly number: number;
  /** The platform's digest of the content. */
  readonly digest: string;
  /** Base64 of the SHA-256 of the archive. */
  readonly sha256: string;
  readonly size: number;
  readonly description: string;
  readonly createdAtMs: number;
  readonly compatibleRuntimes: readonly string[];
  readonly compatibleArchitectures: readonly string[];
  readonly licenseInfo: string | null;
  readonly statements: readonly PolicyStatement[];
  readonly policyRevisionId: string;
}

export interface Layer {
  readonly name: string;
  readonly nextNumber: number;
  /** Oldest first. */
  readonly versions: readonly LayerVersion[];
}

/** A layer's version as a function uses it: it stays when the layer is deleted. */
export interface UsedLayer {
  readonly arn: string;
  readonly digest: string;
  /** Of the archive, in bytes. */
  readonly size: number;
}

const LAYER_VERSION_ARN = /^arn:aws[\w-]*:lambda:[\w-]+:(\d{12}):layer:([\w-]+):(\d+)$/;
const COLLECTION = "aws.lambda.layers";
const PAGE = 1_000;
const VERSIONS_MAX = 200;

/** Layers by namespace and name. */
export class Layers {
  readonly #values: Values;
  readonly #packages: CodePackages;

  constructor(values: Values, packages: CodePackages) {
    this.#values = values;
    this.#packages = packages;
  }

  async find(namespace: string, name: string): Promise<Layer | null> {
    return ((await this.#values.get(COLLECTION, `${namespace}/${name}`))?.value as Layer | undefined) ?? null;
  }

  async list(namespace: string): Promise<readonly Layer[]> {
    const entries = await this.#values.list(COLLECTION, { prefix: `${namespace}/`, limit: PAGE });
    return entries.map(({ value }) => value as Layer).filter(({ versions }) => versions.length > 0);
  }

  /** @throws AwsError `InvalidParameterValueException` */
  async publish(
    name: string,
    archive: Buffer,
    of: Pick<LayerVersion, "description" | "compatibleRuntimes" | "compatibleArchitectures" | "licenseInfo">,
    context: CallContext,
  ): Promise<LayerVersion> {
    const { digest } = await this.#packages.receive(Readable.from([archive]), context.signal);
    let made: LayerVersion | undefined;
    await this.change(context.principal.namespace, name, (layer) => {
      made = {
        number: layer.nextNumber,
        digest,
        sha256: createHash("sha256").update(archive).digest("base64"),
        size: archive.length,
        createdAtMs: context.nowMs,
        statements: [],
        policyRevisionId: "",
        ...of,
      };
      if (layer.versions.length >= VERSIONS_MAX)
        throw new AwsError(
          "CodeStorageExceededException",
          `A layer can have at most ${VERSIONS_MAX} versions; delete some first.`,
        );
      return { ...layer, nextNumber: layer.nextNumber + 1, versions: [...layer.versions, made] };
    });
    if (made === undefined) throw new Error("nothing was published");
    return made;
  }

  /** Replaces a layer, which is made when it is not there; of two changes at once one is refused. */
  async change(namespace: string, name: string, by: (layer: Layer) => Layer): Promise<void> {
    const key = `${namespace}/${name}`;
    const entry = await this.#values.get(COLLECTION, key);
    const before = (entry?.value as Layer | undefined) ?? { name, nextNumber: 1, versions: [] };
    await this.#values.commit([
      { collection: COLLECTION, key, value: by(before), expect: entry?.revision ?? "absent" },
    ]);
  }

  /**
   * The versions that a configuration names, in its order.
   * @throws AwsError `InvalidParameterValueException` for one that is not there
   */
  async resolve(arns: readonly string[], { principal }: Pick<CallContext, "principal">): Promise<readonly UsedLayer[]> {
    return await Promise.all(
      arns.map(async (arn) => {
        const [, account, name = "", number] = LAYER_VERSION_ARN.exec(arn) ?? [];
        const isOwn = account === principal.accountId;
        const layer = isOwn ? await this.find(principal.namespace, name) : null;
        const found = layer?.versions.find((version) => version.number === Number(number));
        if (found !== undefined) return { arn, digest: found.digest, size: found.size };
        const why = isOwn || account === undefined ? "" : `: layers of account ${account} are not on this platform`;
        throw new AwsError("InvalidParameterValueException", `Layer version ${arn} does not exist.${why}`);
      }),
    );
  }

  /** Digests that layers hold: code packages that must stay. */
  async digests(): Promise<readonly string[]> {
    const entries = await this.#values.list(COLLECTION, { limit: PAGE });
    return entries.flatMap(({ value }) => (value as Layer).versions.map(({ digest }) => digest));
  }
}
