import { createHash, timingSafeEqual } from "node:crypto";
import { KoineError } from "../core/errors.ts";
import type { Caller, Right } from "../core/invocation.ts";
import type { RequestHeaders } from "../dialects/request-headers.ts";

/** A token and what its holder may do. */
export interface TokenGrant {
  readonly token: string;
  readonly subject: string;
  /** Null: every namespace. */
  readonly namespace: string | null;
  readonly rights: readonly Right[];
}

const ALL_RIGHTS: ReadonlySet<Right> = new Set(["invoke", "read", "write"]);
const VERIFIED_MAX = 1_000;

/** On loopback without tokens everybody on the machine is the operator. */
const LOCAL_OPERATOR: Caller = { subject: "local", namespace: null, rights: ALL_RIGHTS, byToken: false };

export interface AccessSettings {
  readonly grants: readonly TokenGrant[];
  /** Further host names under which the platform may be addressed, beside loopback ones. */
  readonly hosts: readonly string[];
}

/**
 * Who is asking. Without tokens: anybody who addresses the platform by a loopback name, and no web page of another site, so that
 * neither DNS rebinding nor a hostile page in the user's browser reaches it. With tokens: whoever presents one.
 */
export class Access {
  readonly #grants: readonly { readonly digest: Buffer; readonly caller: Caller }[];
  readonly #hosts: ReadonlySet<string>;
  readonly #verified = new Map<string, Caller>();
  /** Clients mostly use one name for the platform. */
  #lastKnown = "";

  constructor(settings: AccessSettings) {
    this.#grants = settings.grants.map(({ token, subject, namespace, rights }) => ({
      digest: sha256(token),
      caller: { subject, namespace, rights: new Set(rights), byToken: true },
    }));
    this.#hosts = new Set(["127.0.0.1", "localhost", "[::1]", ...settings.hosts.map((host) => host.toLowerCase())]);
  }

  get configured(): boolean {
    return this.#grants.length > 0;
  }

  /**
   * The caller of a request; null for nobody in particular.
   * @throws KoineError `forbidden` for a foreign Host or Origin
   */
  identify(headers: RequestHeaders): Caller | null {
    if (this.configured) {
      const authorization = headers.get("authorization");
      return authorization === undefined ? null : this.#byToken(authorization);
    }
    const host = headers.get("host");
    const origin = headers.get("origin");
    if (host !== undefined && !this.#isKnownHost(host)) {
      throw new KoineError("forbidden", { detail: `host '${host}' is not one of this platform's names` });
    }
    if (origin !== undefined && origin !== "null" && !this.#isKnownHost(origin.replace(/^https?:\/\//, ""))) {
      throw new KoineError("forbidden", {
        detail: `pages of '${origin}' may not call this platform while it has no authentication`,
      });
    }
    if (origin === "null")
      throw new KoineError("forbidden", { detail: "pages without an origin may not call this platform" });
    return LOCAL_OPERATOR;
  }

  #isKnownHost(authority: string): boolean {
    if (authority === this.#lastKnown) return true;
    const name = authority.replace(/:[0-9]+$/, "").toLowerCase();
    if (!this.#hosts.has(name) && !name.endsWith(".localhost")) return false;
    this.#lastKnown = authority;
    return true;
  }

  /** An unknown token is nobody: it may be meant for a public function, which checks it itself. */
  #byToken(authorization: string): Caller | null {
    const known = this.#verified.get(authorization);
    if (known !== undefined) return known;
    const token = /^bearer\s+(.+)$/i.exec(authorization)?.[1]?.trim();
    if (token !== undefined) {
      const digest = sha256(token);
      const grant = this.#grants.find((candidate) => timingSafeEqual(candidate.digest, digest));
      if (grant !== undefined) {
        if (this.#verified.size >= VERIFIED_MAX) this.#verified.clear();
        this.#verified.set(authorization, grant.caller);
        return grant.caller;
      }
    }
    return null;
  }
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
