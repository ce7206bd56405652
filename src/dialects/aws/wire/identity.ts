import type { Principal } from "./service.ts";

/** What stands behind an access key. */
export interface KeyHolder {
  readonly secretAccessKey: string;
  readonly principal: Principal;
}

/** Who is who: access keys and sessions. */
export interface Identities {
  /** Whether anybody has made access keys: until then every key is taken on loopback, as of an emulator. */
  readonly configured: boolean;
  /** The holder of a key; null: there is no such key, or its session has ended or does not fit the token. */
  find(accessKeyId: string, sessionToken: string | null): Promise<KeyHolder | null>;
  /** Whom somebody without a known key stands for on loopback: root of an account, `000000000000` for the default namespace. */
  local(accessKeyId: string | null): Principal;
}

/** Who may do what. */
export interface Policies {
  /** Null: allowed; else why not, as SDKs are told. */
  refusal(request: {
    readonly principal: Principal;
    readonly action: string;
    readonly resource: string;
    /** Condition keys: `aws:SourceArn`, `aws:SourceAccount`, … */
    readonly conditions: Readonly<Record<string, string>>;
  }): Promise<string | null>;
}
