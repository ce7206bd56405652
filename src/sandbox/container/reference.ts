import { KoineError } from "../../core/errors.ts";

/** An image's name in its parts. */
export interface ImageReference {
  /** `docker.io`, `localhost:5000`. */
  readonly registry: string;
  /** `library/nginx` */
  readonly repository: string;
  /** Absent where a digest is named. */
  readonly tag?: string;
  readonly digest?: string;
}

const DEFAULT_REGISTRY = "docker.io";
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const HOST =
  /^(?:[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*(?:\.[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*)*|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;
const LENGTH_MAX = 512;

/** Whether it is the id of an image in an engine, which no registry knows. */
export function isImageId(text: string): boolean {
  return DIGEST.test(text);
}

/**
 * Parses what people write, with the defaults that they expect: `nginx` is `docker.io/library/nginx:latest`.
 * @throws KoineError `invalid-request`
 */
export function parseReference(text: string): ImageReference {
  const refuse = (why: string): KoineError =>
    new KoineError("invalid-request", { detail: `'${text.slice(0, LENGTH_MAX)}' is not an image's name: ${why}` });
  if (text.length > LENGTH_MAX) throw refuse(`it is longer than ${LENGTH_MAX} characters`);
  const [named = "", digest, ...more] = text.split("@");
  if (more.length > 0 || (digest !== undefined && !DIGEST.test(digest))) {
    throw refuse("after '@' comes sha256: and 64 hexadecimal digits");
  }
  const slash = named.indexOf("/");
  const first = slash < 0 ? "" : named.slice(0, slash);
  const hasRegistry = first.includes(".") || first.includes(":") || first === "localhost";
  if (hasRegistry && !HOST.test(first)) throw refuse(`'${first}' is not a registry's address`);
  const rest = hasRegistry ? named.slice(slash + 1) : named;
  const colon = rest.indexOf(":");
  const path = colon < 0 ? rest : rest.slice(0, colon);
  const tag = colon < 0 ? undefined : rest.slice(colon + 1);
  if (tag !== undefined && !TAG.test(tag)) throw refuse(`'${tag}' is not a tag`);
  if (!path.split("/").every((part) => COMPONENT.test(part))) {
    throw refuse("write [REGISTRY/]NAME[:TAG] in small letters, digits, '.', '_' and '-'");
  }
  const registry = hasRegistry && first !== "index.docker.io" ? first : DEFAULT_REGISTRY;
  const repository = registry === DEFAULT_REGISTRY && !path.includes("/") ? `library/${path}` : path;
  return { registry, repository, ...(digest === undefined ? { tag: tag ?? "latest" } : { digest }) };
}

/** `docker.io/library/nginx` */
export function nameOf({ registry, repository }: ImageReference): string {
  return `${registry}/${repository}`;
}

export function formatReference(reference: ImageReference): string {
  const { tag, digest } = reference;
  return digest === undefined ? `${nameOf(reference)}:${tag}` : `${nameOf(reference)}@${digest}`;
}
