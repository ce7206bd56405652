import { cpSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { insideAddresses } from "../network/plan.ts";

/** The user and group that code in a sandbox sees itself as. */
export const INSIDE_ID = 65_534;
export const INSIDE_HOSTNAME = "koine";

/**
 * Fills a folder that becomes `/etc` of all sandboxes: synthetic where the machine's own would tell about it, copies of the little
 * that programs need (library cache, time zone, certificates, the links of Debian's alternatives, what its Java keeps here).
 * @returns a copy of the machine's list of resolvers beside it, for who shares its network; null: there is none
 */
export async function fillEtc(folder: string): Promise<string | null> {
  await mkdir(folder, { recursive: true, mode: 0o755 });
  for (const [name, text] of Object.entries(synthetic)) await writeFile(join(folder, name), text, { mode: 0o644 });
  for (const name of copiedFiles) await orNothing(() => copyFile(join("/etc", name), join(folder, name)));
  const java = (await readdir("/etc").catch(() => [])).filter((name) => /^java-\d+-openjdk$/.test(name));
  for (const name of [...copiedFolders, ...java]) {
    // Some hundred links: at once they take a tenth of the time that waiting for each takes.
    await orNothing(async () =>
      cpSync(join("/etc", name), join(folder, name), { recursive: true, verbatimSymlinks: true }),
    );
  }
  const resolvers = await readFile("/etc/resolv.conf", "utf8").catch(() => null);
  await writeFile(join(folder, "resolv.conf"), resolversInside(resolvers ?? ""), { mode: 0o644 });
  if (resolvers === null) return null;
  const file = `${folder}-resolv.conf`;
  await writeFile(file, resolvers, { mode: 0o644 });
  return file;
}

const synthetic: Readonly<Record<string, string>> = {
  passwd: `root:x:0:0:root:/:/bin/sh\nnobody:x:${INSIDE_ID}:${INSIDE_ID}:nobody:/tmp:/bin/sh\n`,
  group: `root:x:0:\nnogroup:x:${INSIDE_ID}:\n`,
  hosts: `127.0.0.1 localhost ${INSIDE_HOSTNAME}\n::1 localhost ${INSIDE_HOSTNAME}\n`,
  hostname: `${INSIDE_HOSTNAME}\n`,
  "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
};

const copiedFiles = ["ld.so.cache", "localtime", "timezone", "services", "protocols", "mime.types"];
/** Certificates only: the keys beside them are none of a function's business. */
const copiedFolders = ["ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted", "alternatives"];

/** The platform asks the machine's resolvers for a sandbox with a network of its own; what it searches stays. */
function resolversInside(outside: string): string {
  const kept = outside.split("\n").filter((line) => /^\s*(?:search|options|domain)\s/.test(line));
  return [`nameserver ${insideAddresses.platform4}`, ...kept, ""].join("\n");
}

/** Machines differ in which of these they have. */
async function orNothing(copy: () => Promise<void>): Promise<void> {
  await copy().catch(() => {});
}
