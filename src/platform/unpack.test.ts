import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { lstat, mkdtemp, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { crc32, deflateRawSync } from "node:zlib";
import { packageDigest } from "../core/code-package.ts";
import { KoineError } from "../core/errors.ts";
import { unpackArchive, type PackageLimits, type UnpackedPackage } from "./unpack.ts";

const REGULAR = 0o100644;
const LINK = 0o120777;
const limits: PackageLimits = {
  archiveBytesMax: 1 << 20,
  packageBytesMax: 4 << 20,
  packageFilesMax: 50,
  packagePathBytesMax: 1024,
};

interface RawEntry {
  readonly name: string | Buffer;
  readonly content?: string | Buffer;
  readonly mode?: number;
  readonly method?: number;
  readonly flags?: number;
  /** What is declared instead of the truth. */
  readonly declared?: { readonly bytes?: number; readonly checksum?: number; readonly offset?: number };
}

/** An archive written byte by byte, so that it can say what no packer would. */
function zip(entries: readonly RawEntry[]): Buffer {
  const locals: Buffer[] = [];
  const records: Buffer[] = [];
  let offset = 0;
  for (const entry of entries) {
    const name = Buffer.from(entry.name);
    const content = Buffer.from(entry.content ?? "");
    const method = entry.method ?? 8;
    const stored = method === 8 ? deflateRawSync(content) : content;
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(name.length, 26);
    const record = Buffer.alloc(46);
    record.writeUInt32LE(0x02014b50, 0);
    record.writeUInt16LE((3 << 8) | 63, 4);
    record.writeUInt16LE(entry.flags ?? 0x800, 8);
    record.writeUInt16LE(method, 10);
    record.writeUInt32LE(entry.declared?.checksum ?? crc32(content), 16);
    record.writeUInt32LE(stored.length, 20);
    record.writeUInt32LE(entry.declared?.bytes ?? content.length, 24);
    record.writeUInt16LE(name.length, 28);
    record.writeUInt32LE(((entry.mode ?? REGULAR) << 16) >>> 0, 38);
    record.writeUInt32LE(entry.declared?.offset ?? offset, 42);
    locals.push(local, name, stored);
    records.push(record, name);
    offset += 30 + name.length + stored.length;
  }
  const directory = Buffer.concat(records);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...locals, directory, end]);
}

/** The same archive with a zip64 end that names another place for the directory. */
function zip64(archive: Buffer, directoryOffset: bigint): Buffer {
  const body = archive.subarray(0, archive.length - 22);
  const record = Buffer.alloc(56);
  record.writeUInt32LE(0x06064b50, 0);
  record.writeBigUInt64LE(44n, 4);
  record.writeBigUInt64LE(BigInt(archive.readUInt16LE(archive.length - 12)), 32);
  record.writeBigUInt64LE(directoryOffset, 48);
  const locator = Buffer.alloc(20);
  locator.writeUInt32LE(0x07064b50, 0);
  locator.writeBigUInt64LE(BigInt(body.length), 8);
  const end = Buffer.from(archive.subarray(archive.length - 22));
  end.writeUInt32LE(0xffffffff, 16);
  return Buffer.concat([body, record, locator, end]);
}

let folder: string;
let count = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "koine-unpack-"));
});
after(() => rm(folder, { recursive: true, force: true }));

async function unpack(
  archive: Buffer,
  signal = new AbortController().signal,
): Promise<UnpackedPackage & { tree: string }> {
  const tree = join(folder, `tree-${++count}`);
  await writeFile(`${tree}.zip`, archive);
  return { ...(await unpackArchive(`${tree}.zip`, tree, { limits, signal })), tree };
}

async function refused(archive: Buffer, detail: RegExp, code = "invalid-package"): Promise<void> {
  await assert.rejects(unpack(archive), (thrown: unknown) => {
    assert.ok(thrown instanceof KoineError, String(thrown));
    assert.equal(thrown.code, code, thrown.message);
    assert.match(thrown.message, detail);
    return true;
  });
}

const modeOf = async (path: string) => (await lstat(path)).mode & 0o7777;

test("files, executable bits, links, unicode names and empty files arrive as they were", async () => {
  const large = Buffer.alloc(1_500_000, "large ");
  const unpacked = await unpack(
    zip([
      { name: "a/", mode: 0o040755 },
      { name: "a/run.sh", content: "#!", mode: 0o100755 },
      { name: "a/empty" },
      { name: "ü/名前.txt", content: "x", method: 0 },
      { name: "a/link", content: "../ü/名前.txt", mode: LINK },
      { name: "large", content: large, mode: 0 },
    ]),
  );
  assert.equal(await readFile(join(unpacked.tree, "a/link"), "utf8"), "x");
  assert.equal(await readlink(join(unpacked.tree, "a/link")), "../ü/名前.txt");
  assert.deepEqual(await readFile(join(unpacked.tree, "large")), large);
  assert.equal(await modeOf(join(unpacked.tree, "a/run.sh")), 0o755);
  assert.equal(await modeOf(join(unpacked.tree, "a/empty")), 0o644);
  assert.equal(await modeOf(join(unpacked.tree, "a")), 0o755);
  assert.equal(unpacked.files, 5);
  assert.equal(unpacked.bytes, 2 + 1 + large.length);
});

test("the digest is that of the entries, not of the archive", async () => {
  const entries = [
    { name: "b", content: "2" },
    { name: "a", content: "1", method: 0 },
  ];
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
  const expected = packageDigest([
    { kind: "file", path: "a", executable: false, sha256: sha256("1") },
    { kind: "file", path: "b", executable: false, sha256: sha256("2") },
  ]);
  assert.equal((await unpack(zip(entries))).digest, expected);
  const otherwise = [
    { name: "./a", content: "1" },
    { name: "void/", mode: 0o040700 },
    { name: "b", content: "2" },
  ];
  const other = await unpack(zip(otherwise));
  assert.equal(other.digest, expected);
  assert.deepEqual((await readdir(other.tree)).sort(), ["a", "b"]);
});

test("a zip64 archive is read", async () => {
  const archive = zip([{ name: "a", content: "1" }]);
  const unpacked = await unpack(zip64(archive, BigInt(archive.readUInt32LE(archive.length - 6))));
  assert.equal(await readFile(join(unpacked.tree, "a"), "utf8"), "1");
});

test("setuid and write-for-all do not survive", async () => {
  const { tree } = await unpack(zip([{ name: "a", content: "1", mode: 0o106777 }]));
  assert.equal(await modeOf(join(tree, "a")), 0o755);
});

test("names in code page 437 are translated, and UTF-8 is recognised without its flag", async () => {
  const { tree } = await unpack(
    zip([
      { name: Buffer.from([0x81, 0x2e, 0x6a, 0x73]), content: "1", flags: 0 },
      { name: "ñ.js", content: "2", flags: 0 },
    ]),
  );
  assert.deepEqual((await readdir(tree)).sort(), ["ñ.js", "ü.js"].sort());
});

test("an entry outside of the package is refused before anything is written", async () => {
  const good = { name: "good", content: "1" };
  await refused(zip([good, { name: "../evil", content: "1" }]), /'\.\.\/evil': its path leaves/);
  await refused(zip([good, { name: "a/../../evil" }]), /leaves/);
  await refused(zip([good, { name: "/etc/evil" }]), /'\/etc\/evil': its path is absolute/);
  await refused(zip([good, { name: "a\\..\\..\\evil" }]), /backslash/);
  await refused(zip([good, { name: "C:/evil" }]), /drive letter/);
  await refused(zip([good, { name: "a\0b" }]), /NUL/);
  await refused(zip([good, { name: "" }]), /empty/);
  await refused(zip([good, { name: "x".repeat(2000) }]), /longer than/);
  assert.equal((await readdir(folder)).includes("evil"), false);
  assert.deepEqual(await readdir(join(folder, `tree-${count}`)).catch(() => "nothing"), "nothing");
});

test("a link that leaves the package is refused", async () => {
  await refused(zip([{ name: "a", content: "/etc/passwd", mode: LINK }]), /'a': the link is absolute/);
  await refused(zip([{ name: "d/a", content: "../../x", mode: LINK }]), /leaves/);
  await refused(zip([{ name: "a", content: "b/../../x", mode: LINK }]), /goes up/);
  await refused(zip([{ name: "a", content: "x".repeat(1100), mode: LINK }]), /longer/);
  await refused(zip([{ name: "a", content: Buffer.from([0xff, 0xfe]), mode: LINK }]), /Unicode/);
});

test("a file through a link is refused, in either order", async () => {
  const link = { name: "out", content: ".", mode: LINK };
  await refused(zip([link, { name: "out/evil", content: "1" }]), /below the link 'out'/);
  await refused(zip([{ name: "out/evil", content: "1" }, link]), /two entries/);
  await refused(zip([link, { name: "out", content: "1" }]), /two entries/);
});

test("devices, pipes and sockets are refused", async () => {
  for (const type of [0o020000, 0o060000, 0o010000, 0o140000]) {
    await refused(zip([{ name: "a", mode: type | 0o644 }]), /device, a pipe or a socket/);
  }
});

test("names that collide are refused", async () => {
  await refused(zip([{ name: "a" }, { name: "a" }]), /two entries/);
  await refused(zip([{ name: "a" }, { name: "A" }]), /only in case/);
  await refused(zip([{ name: "a" }, { name: "a/b" }]), /two entries/);
});

test("an entry that is larger or smaller than it says is refused, whatever its size", async () => {
  const small = Buffer.alloc(100_000);
  const large = Buffer.alloc(3_000_000);
  await refused(zip([{ name: "a", content: small, declared: { bytes: 10 } }]), /not as large as it says/);
  await refused(zip([{ name: "a", content: small, declared: { bytes: 100_001 } }]), /not as large as it says/);
  await refused(zip([{ name: "a", content: large, declared: { bytes: 2_000_000 } }]), /not as large as it says/);
  await refused(zip([{ name: "a", content: large, declared: { bytes: 3_000_001 } }]), /not as large as it says/);
  await refused(zip([{ name: "a", content: "1", method: 0, declared: { bytes: 5 } }]), /mismatch/);
});

test("too much is refused by what the archive declares, before it is unpacked", async () => {
  const megabyte = Buffer.alloc(1 << 20);
  const five = [1, 2, 3, 4, 5].map((n) => ({ name: `${n}`, content: megabyte }));
  await refused(zip(five), /bytes is 5242880; allowed is 4194304/, "limit-exceeded");
  const many = Array.from({ length: 51 }, (_, n) => ({ name: `${n}` }));
  await refused(zip(many), /is 51; allowed is 50/, "limit-exceeded");
  const folders = Array.from({ length: 101 }, (_, n) => ({ name: `${n}/`, mode: 0o040755 }));
  await refused(zip(folders), /allowed is 50/, "limit-exceeded");
});

test("damaged content is refused", async () => {
  await refused(zip([{ name: "a", content: "1", declared: { checksum: 1 } }]), /checksum/);
  const archive = zip([{ name: "a", content: "some content to be damaged" }]);
  archive.fill(0xff, 31, 40);
  await refused(archive, /damaged|checksum/);
});

test("encrypted entries and unknown compression are refused", async () => {
  await refused(zip([{ name: "a", content: "1", flags: 0x801 }]), /encrypted/);
  await refused(zip([{ name: "a", content: "1", flags: 0x841 }]), /encryption/);
  await refused(zip([{ name: "a", content: "1", method: 12 }]), /compression method 12/);
});

test("what is no archive, a truncated one, and an empty one are refused", async () => {
  const archive = zip([{ name: "a", content: "1" }]);
  await refused(Buffer.from("this is no archive"), /cannot be read/);
  await refused(Buffer.alloc(0), /cannot be read/);
  await refused(archive.subarray(0, archive.length - 10), /cannot be read/);
  await refused(archive.subarray(20), /cannot be read/);
  await refused(zip([]), /no file/);
  await refused(zip([{ name: "a/", mode: 0o040755 }]), /no file/);
});

test("offsets that point outside of the archive are refused and do not end the process", async () => {
  const archive = zip([{ name: "a", content: "1" }]);
  await refused(zip64(archive, 0xffff_ffff_ffff_ffffn), /points outside/);
  await refused(zip64(archive, 1n << 52n), /points outside/);
  await refused(zip([{ name: "a", content: "1", declared: { offset: 0x7fff_ffff } }]), /points outside/);
});

test("whatever byte of an archive is changed, the answer is a tree or one clear error", async () => {
  const archive = zip([
    { name: "a/run", content: "some content", mode: 0o100755 },
    { name: "b", content: "x".repeat(300), method: 0 },
    { name: "c", content: "b", mode: LINK },
  ]);
  for (let at = 0; at < archive.length; at += 3) {
    for (const value of [0x00, 0x7f, 0xff]) {
      const changed = Buffer.from(archive);
      changed[at] = value;
      await unpack(changed).catch((thrown: unknown) => {
        assert.ok(thrown instanceof KoineError, `byte ${at} = ${value}: ${String(thrown)}`);
      });
    }
  }
});

test("an aborted unpacking ends with the reason", async () => {
  const reason = new Error("enough");
  await assert.rejects(unpack(zip([{ name: "a" }]), AbortSignal.abort(reason)), reason);
});
