import { cpSync } from "node:fs";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** The user and group that code in a sandbox sees itself as. */
export const INSIDE_ID = 65_534;
export const INSIDE_HOSTNAME = "koine";

/**
 * Fills a folder that becomes `/etc` of all sandboxes: synthetic where the machine's own would tell about it, copies of the little
 * that programs need (library cache, resolvers, time zone, certificates, the links of Debian's alternatives).
 */
export async function fillEtc(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o755 });
  for (const [name, text] of Object.entries(synthetic)) await writeFile(join(folder, name), text, { mode: 0o644 });
  for (const name of copiedFiles) await orNothing(() => copyFile(join("/etc", name), join(folder, name)));
  for (const name of copiedFolders) {
    // Some hundred links: at once they take a tenth of the time that waiting for each takes.
    await orNothing(async () =>
      cpSync(join("/etc", name), join(folder, name), { recursive: true, verbatimSymlinks: true }),
    );
  }
}

const synthetic: Readonly<Record<string, string>> = {
  passwd: `root:x:0:0:root:/:/bin/sh\nnobody:x:${INSIDE_ID}:${INSIDE_ID}:nobody:/tmp:/bin/sh\n`,
  group: `root:x:0:\nnogroup:x:${INSIDE_ID}:\n`,
  hosts: `127.0.0.1 localhost ${INSIDE_HOSTNAME}\n::1 localhost ${INSIDE_HOSTNAME}\n`,
  hostname: `${INSIDE_HOSTNAME}\n`,
  "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
};

const copiedFiles = ["ld.so.cache", "resolv.conf", "localtime", "timezone", "services", "protocols", "mime.types"];
/** Certificates only: the keys beside them are none of a function's business. */
const copiedFolders = ["ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted", "alternatives"];

/** Machines differ in which of these they have. */
async function orNothing(copy: () => Promise<void>): Promise<void> {
  await copy().catch(() => {});
}
