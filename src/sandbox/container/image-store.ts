import { packTar } from "modern-tar/fs";
import type { Clock } from "../../core/clock.ts";
import { KoineError, toKoineError } from "../../core/errors.ts";
import { newId } from "../../core/ids.ts";
import { limits } from "../../core/limits.ts";
import type { ImageBuildRequest, ImageRequest, Images, PinnedImage, RegistryCredentials } from "../images.ts";
import type { ConnectedEngine } from "./connection.ts";
import { EngineRefusal } from "./engine-api.ts";
import { hexOf, idOf, type ImageInspection, imagePath, type Origin } from "./images.ts";
import { messagesOf, PullProgress } from "./progress.ts";
import { formatReference, type ImageReference, isImageId, nameOf, parseReference } from "./reference.ts";
import { registryAuth } from "./registry-login.ts";

export interface EngineImagesOptions {
  connect(): Promise<ConnectedEngine>;
  /** The engine, where it was connected to already. */
  connected(): ConnectedEngine | null;
  readonly clock: Clock;
  /** Docker's client configuration, where the platform's user may have logged in to registries; null: it is not used. */
  readonly clientConfigFile: string | null;
  readonly searchPath: string;
}

const NO_INSTRUCTION = /requires BuildKit|unknown flag: |the --\w+ option requires|unknown instruction: [^A-Z]/;
/** Output of a failed build that its error repeats. */
const LAST_LINES = 20;

/** The images of functions in one engine. Each has a name of the platform's own as long as it is needed, so that `docker image prune` spares it. */
export class EngineImages implements Images {
  readonly #options: EngineImagesOptions;
  /** When images were last asked for, by their digest, so that none goes between a pull and the deploy that needs it. */
  readonly #usedAtMs = new Map<string, number>();
  readonly #startedAtMs: number;

  constructor(options: EngineImagesOptions) {
    this.#options = options;
    this.#startedAtMs = options.clock.nowMs();
  }

  async pin(request: ImageRequest, signal: AbortSignal): Promise<PinnedImage> {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(limits.imagePullMs)]);
    const engine = await this.#options.connect();
    const { reference: text } = request;
    try {
      if (isImageId(text)) return await this.#keep(engine, text, { image: text, origin: "found" });
      const reference = parseReference(text);
      const auth = await registryAuth(reference, request.credentials, {
        configFile: this.#options.clientConfigFile,
        searchPath: this.#options.searchPath,
      });
      const local = await engine.images.inspect(formatReference(reference), bounded);
      const wanted = reference.digest ?? (await this.#digestOf({ engine, reference, auth, local }, request, bounded));
      if (wanted === null && local !== null) {
        return await this.#keep(engine, idOf(local), { image: idOf(local), origin: "found" });
      }
      if (wanted !== null) {
        const image = `${nameOf(reference)}@${wanted}`;
        const there = await engine.images.inspect(image, bounded);
        if (there !== null) return await this.#keep(engine, idOf(there), { image, origin: "found" });
      }
      return await this.#pull(engine, { reference, digest: wanted, auth, text }, request, bounded);
    } catch (thrown) {
      throw thrown instanceof EngineRefusal ? registryError(text, thrown.message, thrown) : toKoineError(thrown);
    }
  }

  async build(request: ImageBuildRequest, signal: AbortSignal): Promise<PinnedImage> {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(limits.buildTimeoutMs)]);
    const engine = await this.#options.connect();
    const temporary = `building-${newId()}`;
    const context = packTar(request.contextFolder, {
      map: (header) => ({ ...header, uid: 0, gid: 0, uname: "", gname: "" }),
    });
    const last: string[] = [];
    try {
      const answer = await engine.api.stream("POST", "/build", {
        query: {
          dockerfile: request.dockerfile,
          t: `${engine.images.repository}:${temporary}`,
          rm: 1,
          forcerm: 1,
          memory: limits.buildMemoryBytesMax,
          memswap: limits.buildMemoryBytesMax,
        },
        content: { type: "application/x-tar", source: context },
        signal: bounded,
      });
      for await (const { stream = "", status = "", error } of messagesOf(answer)) {
        if (error !== undefined) throw buildFailed(error, last);
        for (const line of (stream || status).split("\n").map((text) => text.trimEnd())) {
          if (line === "" || line.includes(temporary)) continue;
          last.push(line);
          if (last.length > LAST_LINES) last.shift();
          request.onOutput(line.slice(0, limits.imageLineLengthMax));
        }
      }
      const built = await engine.images.inspect(`${engine.images.repository}:${temporary}`, bounded);
      if (built === null) throw buildFailed("the engine did not make an image", last);
      return await this.#keep(engine, idOf(built), { image: idOf(built), origin: "built" });
    } catch (thrown) {
      if (bounded.aborted && !signal.aborted)
        throw buildFailed(`it took longer than ${limits.buildTimeoutMs / 1_000} s`, last);
      throw thrown instanceof EngineRefusal ? buildFailed(thrown.message, last) : toKoineError(thrown);
    } finally {
      context.destroy();
      await untag(engine, `${engine.images.repository}:${temporary}`);
    }
  }

  has(image: string): boolean {
    return this.#options.connected()?.images.knows(image) === true;
  }

  async ensure(
    image: string,
    credentials: () => Promise<RegistryCredentials | null>,
    signal: AbortSignal,
  ): Promise<void> {
    this.#touch(image);
    const engine = await this.#options.connect();
    try {
      await engine.images.facts(image, signal);
    } catch (thrown) {
      if (!(thrown instanceof KoineError) || thrown.code !== "image-not-found") throw toKoineError(thrown);
      if (isImageId(image)) {
        const detail = "it was in this engine only, and has been removed there; deploy the function again";
        throw new KoineError("image-not-found", { image, detail }, { cause: thrown });
      }
      await this.pin({ reference: image, credentials: await credentials(), onProgress: () => {} }, signal);
    }
  }

  async keepOnly(images: ReadonlySet<string>): Promise<number> {
    const engine = this.#options.connected();
    // Who has not asked for an image since the start has none to let go of that could not wait.
    if (engine === null) return 0;
    const needed = new Set([...images].map(hexOf));
    const listed = (await engine.api.json("GET", "/images/json")) as readonly ImageInspection[];
    let removed = 0;
    for (const { Id: id, RepoTags: names } of listed) {
      for (const name of names ?? []) {
        const [, origin, hex = ""] =
          /^(found|pulled|built)-([0-9a-f]{64})$/.exec(name.slice(name.lastIndexOf(":") + 1)) ?? [];
        const own = name.slice(0, name.lastIndexOf(":")).split("/").at(-1) === engine.images.repository;
        if (!own || origin === undefined || needed.has(hex) || !this.#isOld(hex)) continue;
        await untag(engine, name);
        if (origin !== "found") await removeUnnamed(engine, id);
        removed++;
      }
    }
    return removed;
  }

  /** What a tag means now, in the registry; null: nobody but this engine knows the image, or the tag is to be pulled as it is. */
  async #digestOf(
    { engine, reference, auth, local }: PinContext,
    request: ImageRequest,
    signal: AbortSignal,
  ): Promise<string | null> {
    const digest = digestIn(local, reference);
    // It was built or loaded here: a registry that has something of that name has something else.
    if (local !== null && digest === null) return null;
    // Podman has no such question; there the tag is pulled, which does nothing when it has not moved.
    if (engine.facts.isPodman) return null;
    request.onProgress(`asking ${reference.registry} for ${request.reference}`);
    try {
      const answer = (await engine.api.json("GET", `/distribution/${imagePath(formatReference(reference))}/json`, {
        headers: authHeader(auth),
        signal: AbortSignal.any([signal, AbortSignal.timeout(limits.registryAnswerMs)]),
      })) as { readonly Descriptor?: { readonly digest?: string } };
      return answer.Descriptor?.digest ?? null;
    } catch (thrown) {
      if (signal.aborted || digest === null) {
        if (thrown instanceof EngineRefusal || signal.aborted) throw thrown;
        throw new KoineError(
          "registry-unavailable",
          { image: request.reference, detail: "it did not answer in time" },
          { cause: thrown },
        );
      }
      request.onProgress(`${reference.registry} does not answer; using the ${request.reference} that the engine has`);
      return digest;
    }
  }

  async #pull(
    engine: ConnectedEngine,
    {
      reference,
      digest,
      auth,
      text,
    }: { reference: ImageReference; digest: string | null; auth: string | null; text: string },
    request: ImageRequest,
    signal: AbortSignal,
  ): Promise<PinnedImage> {
    const progress = new PullProgress(text);
    request.onProgress(progress.line);
    const answer = await engine.api.stream("POST", "/images/create", {
      query: { fromImage: nameOf(reference), tag: digest ?? reference.digest ?? reference.tag },
      headers: authHeader(auth),
      signal,
    });
    let shown = progress.line;
    for await (const message of messagesOf(answer)) {
      if (message.error !== undefined) throw registryError(text, message.error);
      const line = progress.take(message);
      if (line !== shown) request.onProgress(line);
      shown = line;
    }
    const name = digest === null ? formatReference(reference) : `${nameOf(reference)}@${digest}`;
    const pulled = await engine.images.inspect(name, signal);
    if (pulled === null) throw new KoineError("image-not-found", { image: text, detail: "the engine did not keep it" });
    const found = digest ?? digestIn(pulled, reference);
    const image = found === null ? idOf(pulled) : `${nameOf(reference)}@${found}`;
    return await this.#keep(engine, idOf(pulled), { image, origin: "pulled" });
  }

  /** Gives an image a name of the platform's own. */
  async #keep(
    engine: ConnectedEngine,
    id: string,
    { image, origin }: { readonly image: string; readonly origin: Origin },
  ): Promise<PinnedImage> {
    this.#touch(image);
    engine.images.forget(image);
    const facts = await engine.images.facts(id);
    const names = (await engine.images.inspect(id))?.RepoTags ?? [];
    const isKept = names.some((name) => name.includes(`${engine.images.repository}:`) && name.endsWith(hexOf(image)));
    if (!isKept) {
      await engine.api.json("POST", `/images/${imagePath(id)}/tag`, {
        query: { repo: engine.images.repository, tag: engine.images.ownTag(image, origin) },
      });
    }
    return { image, digest: `sha256:${hexOf(image)}`, ports: facts.ports };
  }

  #touch(image: string): void {
    this.#usedAtMs.set(hexOf(image), this.#options.clock.nowMs());
  }

  #isOld(hex: string): boolean {
    return this.#options.clock.nowMs() - (this.#usedAtMs.get(hex) ?? this.#startedAtMs) >= limits.unusedPackageMs;
  }
}

interface PinContext {
  readonly engine: ConnectedEngine;
  readonly reference: ImageReference;
  readonly auth: string | null;
  /** What the engine has under that name. */
  readonly local: ImageInspection | null;
}

/** The digest that a registry of that name gave to an image; null when none did. */
function digestIn(image: ImageInspection | null, reference: ImageReference): string | null {
  for (const text of image?.RepoDigests ?? []) {
    try {
      const parsed = parseReference(text);
      if (nameOf(parsed) === nameOf(reference) && parsed.digest !== undefined) return parsed.digest;
    } catch {
      // `<none>@<none>`, and what other tools write.
    }
  }
  return null;
}

function authHeader(auth: string | null): Readonly<Record<string, string>> {
  return auth === null ? {} : { "x-registry-auth": auth };
}

async function untag({ api }: ConnectedEngine, name: string): Promise<void> {
  await api.json("DELETE", `/images/${imagePath(name)}`).catch(() => {});
}

/** An image that a container or somebody's tag still needs stays. */
async function removeUnnamed(engine: ConnectedEngine, id: string): Promise<void> {
  const left = await engine.images.inspect(id).catch(() => null);
  if (left !== null && (left.RepoTags ?? []).length === 0) await untag(engine, id);
}

/** What a registry, or the engine on its behalf, refused with. */
function registryError(image: string, message: string, cause?: unknown): KoineError {
  const detail = message.trim().slice(0, 500);
  if (/unauthorized|authentication required|denied|forbidden|no basic auth|incorrect username/i.test(message)) {
    return new KoineError("image-access-denied", { image, detail }, { cause });
  }
  if (/not found|manifest unknown|no such image|name unknown|no matching manifest/i.test(message)) {
    return new KoineError("image-not-found", { image, detail }, { cause });
  }
  return new KoineError("registry-unavailable", { image, detail }, { cause });
}

function buildFailed(message: string, lastLines: readonly string[]): KoineError {
  const needsMore = NO_INSTRUCTION.test(message);
  const detail = needsMore
    ? `${message}; the engine's built-in builder does not know it: build with 'docker build', and deploy with --image`
    : message;
  return new KoineError("image-build-failed", { detail: detail.trim().slice(0, 1_000), output: lastLines.join("\n") });
}
