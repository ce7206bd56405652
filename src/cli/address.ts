import { DEFAULT_NAMESPACE, parseFunctionRef } from "../core/function.ts";
import type { FunctionRef } from "../core/function.ts";
import type { Session } from "./command.ts";
import { usageFailure } from "./failure.ts";

/** Path of a namespace's resources: `/v1/namespaces/default/functions`. */
export function namespacePath(session: Session, rest: string, namespace = session.settings.namespace): string {
  return `/v1/namespaces/${encodeURIComponent(namespace)}${rest}`;
}

/**
 * The function that a name on the command line means.
 * @throws KoineError `invalid-name`, CliFailure `usage` for a qualifier where none belongs
 */
export function functionNamed(session: Session, text: string): FunctionRef {
  const ref = parseFunctionRef(text, session.settings.namespace);
  if (ref.qualifier !== undefined) {
    throw usageFailure(
      `'${text}' names a version or alias, but this is about the whole function`,
      `Write '${inPackage(ref)}'.`,
    );
  }
  return ref;
}

/** Path of a function in the management API. */
export function functionPath(session: Session, ref: FunctionRef, rest = ""): string {
  return namespacePath(session, `/functions/${encodeURIComponent(inPackage(ref))}${rest}`, ref.namespace);
}

/** Path at which a function is called over HTTP. */
export function callPath(ref: FunctionRef): string {
  const qualifier = ref.qualifier === undefined ? "" : `:${ref.qualifier}`;
  const own = `/fn/${encodeURIComponent(inPackage(ref))}${qualifier}`;
  return ref.namespace === DEFAULT_NAMESPACE ? own : `/ns/${encodeURIComponent(ref.namespace)}${own}`;
}

/** `name` or `package/name`: what `--namespace` leaves to be said. */
export function inPackage(ref: Pick<FunctionRef, "package" | "name">): string {
  return ref.package === "" ? ref.name : `${ref.package}/${ref.name}`;
}
