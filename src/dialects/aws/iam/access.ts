import { DEFAULT_NAMESPACE } from "../../../core/function.ts";
import type { Sealer } from "../../../platform/secrets.ts";
import { accountIdOf } from "../account.ts";
import type { Identities, KeyHolder, Policies } from "../wire/identity.ts";
import type { Principal } from "../wire/service.ts";
import { type IamDirectory, newIdentifier, type Role, type User } from "./directory.ts";
import { vendorPolicy } from "./managed.ts";
import { evaluate, type PolicyDocument } from "./policy.ts";
import { randomBytes } from "node:crypto";

/** What a session token holds, sealed: nothing of it is stored. */
interface Session {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly principal: Principal;
  readonly expiresAtMs: number;
}

export interface SessionCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
  readonly expiresAtMs: number;
}

const SESSION_CONTEXT = "aws session";
const SESSIONS_MAX = 1_000;
/** Seven days. */
const EXECUTION_SECONDS = 7 * 24 * 3_600;
/** Of roles that were never made here. */
const UNKNOWN_ROLE_ID = "AROALOCALROLE0000000";

/** Who signs with which key, and what they may: long-lived keys of users, and sessions, whose tokens carry everything sealed. */
export class IamAccess implements Identities, Policies {
  readonly #directory: IamDirectory;
  readonly #sealer: Sealer;
  readonly #nowMs: () => number;
  /** Parsed documents by their text. */
  readonly #documents = new Map<string, PolicyDocument>();
  /** Sessions by their tokens, for those that call again. */
  readonly #sessions = new Map<string, Session>();

  constructor(directory: IamDirectory, sealer: Sealer, nowMs: () => number) {
    this.#directory = directory;
    this.#sealer = sealer;
    this.#nowMs = nowMs;
  }

  get configured(): boolean {
    return this.#directory.hasKeys;
  }

  async find(accessKeyId: string, sessionToken: string | null): Promise<KeyHolder | null> {
    if (sessionToken !== null) return this.#session(accessKeyId, sessionToken);
    const holder = this.#directory.holderOf(accessKeyId);
    if (holder === null || holder.key.status !== "Active") return null;
    const { namespace, key, secretAccessKey } = holder;
    const user = this.#directory.find("user", namespace, key.user);
    return user === null ? null : { secretAccessKey, principal: { ...userPrincipal(namespace, user), accessKeyId } };
  }

  local(accessKeyId: string | null): Principal {
    const accountId = accountIdOf(DEFAULT_NAMESPACE);
    return {
      arn: `arn:aws:iam::${accountId}:root`,
      accountId,
      namespace: DEFAULT_NAMESPACE,
      userId: accountId,
      accessKeyId,
      session: null,
    };
  }

  /** Keys for somebody who acts in a role for a while. */
  openSession(
    principal: Principal,
    options: { readonly seconds: number; readonly policy: string | null },
  ): SessionCredentials {
    const accessKeyId = newIdentifier("ASIA");
    const secretAccessKey = randomBytes(30).toString("base64");
    const expiresAtMs = this.#nowMs() + options.seconds * 1_000;
    const session: Session = {
      accessKeyId,
      secretAccessKey,
      principal: { ...principal, accessKeyId, session: { policy: options.policy } },
      expiresAtMs,
    };
    return {
      accessKeyId,
      secretAccessKey,
      sessionToken: this.#sealer.seal(JSON.stringify(session), SESSION_CONTEXT),
      expiresAtMs,
    };
  }

  /** A principal that acts in a role. */
  inRole(namespace: string, role: Pick<Role, "name" | "id">, sessionName: string): Principal {
    const accountId = accountIdOf(namespace);
    return {
      arn: `arn:aws:sts::${accountId}:assumed-role/${role.name}/${sessionName}`,
      accountId,
      namespace,
      userId: `${role.id}:${sessionName}`,
      accessKeyId: null,
      session: null,
    };
  }

  /** Keys with which a function's code acts in its role, for as long as its instance is likely to live. */
  openExecution(
    namespace: string,
    { roleArn, sessionName }: { readonly roleArn: string; readonly sessionName: string },
  ): SessionCredentials {
    const name = roleArn.split("/").at(-1) ?? "";
    const found = this.#directory.find("role", namespace, name);
    const role = found ?? { name: name === "" ? "none" : name, id: UNKNOWN_ROLE_ID };
    return this.openSession(this.inRole(namespace, role, sessionName.slice(0, 64)), {
      seconds: EXECUTION_SECONDS,
      policy: null,
    });
  }

  async refusal(request: Parameters<Policies["refusal"]>[0]): Promise<string | null> {
    const { principal, action, resource, conditions } = request;
    const narrowed = principal.session?.policy ?? null;
    const isOperator = principal.arn.endsWith(":root") || this.#isOfNobody(principal);
    if (isOperator && narrowed === null) return null;
    const asked = {
      principalArn: principal.arn,
      principalAccountId: principal.accountId,
      action,
      resource,
      conditions: { "aws:CurrentTime": new Date(this.#nowMs()).toISOString(), ...conditions },
    };
    const decision = isOperator ? "allow" : evaluate(this.#policiesOf(principal), asked);
    const within = narrowed === null ? "allow" : evaluate([this.parsed(narrowed)], asked);
    if (decision === "allow" && within === "allow") return null;
    const who = `User: ${principal.arn} is not authorized to perform: ${action} on resource: ${resource}`;
    return decision === "deny" || within === "deny"
      ? `${who} with an explicit deny in an identity-based policy`
      : `${who} because no identity-based policy allows the ${action} action`;
  }

  parsed(document: string): PolicyDocument {
    let parsed = this.#documents.get(document);
    if (parsed === undefined) {
      parsed = JSON.parse(document) as PolicyDocument;
      if (this.#documents.size >= 1_000) this.#documents.clear();
      this.#documents.set(document, parsed);
    }
    return parsed;
  }

  /** While nobody has keys, everybody is the operator, also in a role that was never made: tools name roles that exist in the cloud only. */
  #isOfNobody({ arn, namespace }: Principal): boolean {
    if (this.configured) return false;
    const [, role] = /:assumed-role\/([^/]+)/.exec(arn) ?? [];
    return role !== undefined && this.#directory.find("role", namespace, role) === null;
  }

  #session(accessKeyId: string, token: string): KeyHolder | null {
    const session = this.#sessions.get(token) ?? this.#openedSession(token);
    if (session === null) return null;
    if (session.accessKeyId !== accessKeyId || session.expiresAtMs <= this.#nowMs()) return null;
    return { secretAccessKey: session.secretAccessKey, principal: session.principal };
  }

  #openedSession(token: string): Session | null {
    try {
      const session = JSON.parse(this.#sealer.open(token, SESSION_CONTEXT)) as Session;
      if (this.#sessions.size >= SESSIONS_MAX) this.#sessions.clear();
      this.#sessions.set(token, session);
      return session;
    } catch {
      return null;
    }
  }

  #policiesOf(principal: Principal): readonly PolicyDocument[] {
    const [, kind = "", name = ""] =
      /:(user|assumed-role)\/(?:.*\/)?([^/]+)(?:\/[^/]+)?$/.exec(arnOfBearer(principal.arn)) ?? [];
    const bearer =
      kind === "user"
        ? this.#directory.find("user", principal.namespace, name)
        : this.#directory.find("role", principal.namespace, name);
    if (bearer === null) return [];
    const attached = bearer.attached.flatMap((arn) => {
      const vendor = vendorPolicy(arn);
      if (vendor !== null) return [vendor];
      const policy = this.#directory.find("policy", principal.namespace, arn.split("/").at(-1) ?? "");
      const version = policy?.versions.find(({ id }) => id === policy.defaultVersion);
      return version === undefined ? [] : [this.parsed(version.document)];
    });
    return [...Object.values(bearer.inline).map((document) => this.parsed(document)), ...attached];
  }
}

/** Without the session at the end, a role's name is the last part as a user's is. */
function arnOfBearer(arn: string): string {
  return arn.includes(":assumed-role/") ? arn.split("/").slice(0, 2).join("/") : arn;
}

function userPrincipal(namespace: string, user: User): Principal {
  const accountId = accountIdOf(namespace);
  return {
    arn: `arn:aws:iam::${accountId}:user${user.path}${user.name}`,
    accountId,
    namespace,
    userId: user.id,
    accessKeyId: null,
    session: null,
  };
}
