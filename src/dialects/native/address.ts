import { KoineError } from "../../core/errors.ts";
import { type FunctionRef, isName, parseFunctionRef } from "../../core/function.ts";
import type { Parameters } from "./router.ts";

/**
 * The function that a part of a path names within the path's namespace: `name` or `package/name`, with an optional `:qualifier`. A
 * whole address is refused: rights were looked up for the path's namespace, not for the address's.
 * @throws KoineError `invalid-name`
 */
export function refWithin(namespace: string, text: string): FunctionRef {
  if (!isName(namespace)) throw new KoineError("invalid-name", { name: namespace });
  const ref = parseFunctionRef(text, namespace);
  if (text.startsWith("/") || text.split("/").length > 2) throw new KoineError("invalid-name", { name: text });
  return ref;
}

/** The function that a path of the management API names, which is always a whole function. @throws KoineError `invalid-name` */
export function refOf(parameters: Parameters): FunctionRef {
  const text = parameters["fn"] ?? "";
  const ref = refWithin(parameters["ns"] ?? "", text);
  if (ref.qualifier !== undefined) throw new KoineError("invalid-name", { name: text });
  return ref;
}

/** A segment of a path as text. @throws KoineError `invalid-name` when it is not UTF-8 in percent-encoding */
export function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new KoineError("invalid-name", { name: segment });
  }
}
