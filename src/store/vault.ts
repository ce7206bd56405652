import { createCipheriv, createDecipheriv, createHash, randomBytes, randomUUID } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { KoineError } from "../core/errors.ts";

/** Encrypts secret values for the database. Neither values nor keys appear in errors. */
export interface Vault {
  /** `context` says what the value belongs to (`namespace/name`); a sealed text opens only with the same. */
  seal(plaintext: string, context: string): string;
  /** @throws KoineError `secret-key-unusable` when it was sealed with another key or for another context, or was changed */
  open(sealed: string, context: string): string;
}

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const FORMAT = "v1";

/**
 * AES-256-GCM with a key in a file of its own (32 bytes as 64 hexadecimal digits, mode 0600), made at the first use. Whoever has a copy of the database
 * but not of this file cannot read the secrets.
 * @throws KoineError `secret-key-unusable` when the file cannot be read or written, holds no key, or may be read by everybody
 */
export async function openVault({ keyFile }: { readonly keyFile: string }): Promise<Vault> {
  try {
    return new AesVault(keyFile, (await readKey(keyFile)) ?? (await makeKey(keyFile)));
  } catch (thrown) {
    if (thrown instanceof KoineError) throw thrown;
    throw unusable(keyFile, thrown instanceof Error ? thrown.message : "the key file cannot be used", thrown);
  }
}

class AesVault implements Vault {
  readonly #keyFile: string;
  readonly #key: Buffer;
  /** Names the key without telling anything of it, so that a wrong key is told from a damaged value. */
  readonly #keyId: string;

  constructor(keyFile: string, key: Buffer) {
    this.#keyFile = keyFile;
    this.#key = key;
    this.#keyId = createHash("sha256").update("koine key id").update(key).digest("hex").slice(0, 8);
  }

  seal(plaintext: string, context: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(Buffer.from(context));
    const body = Buffer.concat([cipher.update(plaintext, "utf8"), cipher.final()]);
    return `${FORMAT}.${this.#keyId}.${Buffer.concat([nonce, cipher.getAuthTag(), body]).toString("base64url")}`;
  }

  open(sealed: string, context: string): string {
    const [format, keyId, text = ""] = sealed.split(".");
    if (format !== FORMAT) throw unusable(this.#keyFile, `'${context}' is in a format that is not known`);
    if (keyId !== this.#keyId) throw unusable(this.#keyFile, `'${context}' was sealed with another key`);
    const bytes = Buffer.from(text, "base64url");
    try {
      const nonce = bytes.subarray(0, NONCE_BYTES);
      const decipher = createDecipheriv("aes-256-gcm", this.#key, nonce, { authTagLength: TAG_BYTES });
      decipher.setAAD(Buffer.from(context));
      decipher.setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
      const body = bytes.subarray(NONCE_BYTES + TAG_BYTES);
      return Buffer.concat([decipher.update(body), decipher.final()]).toString("utf8");
    } catch (thrown) {
      throw unusable(this.#keyFile, `'${context}' was changed, or sealed for another name`, thrown);
    }
  }
}

const OTHERS_MAY = 0o007;

async function readKey(keyFile: string): Promise<Buffer | null> {
  let text: string;
  try {
    text = await readFile(keyFile, "utf8");
  } catch (thrown) {
    if (thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT") return null;
    throw thrown;
  }
  const { mode } = await stat(keyFile);
  if ((mode & OTHERS_MAY) !== 0) throw unusable(keyFile, "the key file may be read by everybody; make its mode 0600");
  if (!/^[0-9a-f]{64}\s*$/.test(text)) throw unusable(keyFile, "the key file holds no key");
  return Buffer.from(text.trim(), "hex");
}

async function makeKey(keyFile: string): Promise<Buffer> {
  const key = randomBytes(KEY_BYTES);
  const directory = dirname(keyFile);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const temporary = `${keyFile}.${randomUUID()}`;
  try {
    await writeSynced(temporary, `${key.toString("hex")}\n`);
    await rename(temporary, keyFile);
    const handle = await open(directory, "r");
    await handle.sync();
    await handle.close();
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw thrown;
  }
  return key;
}

async function writeSynced(path: string, text: string): Promise<void> {
  const handle = await open(path, "wx", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function unusable(keyFile: string, detail: string, cause?: unknown): KoineError {
  return new KoineError("secret-key-unusable", { keyFile, detail }, { cause });
}
