// A reporter for node:test that prints a line per file, every failure in full, and the totals.

/** @param {AsyncIterable<{ type: string, data: any }>} source */
export default async function* reporter(source) {
  let passed = 0;
  let failed = 0;
  /** @type {Map<string, { passed: number, failed: number, durationMs: number }>} */
  const files = new Map();
  for await (const { type, data } of source) {
    if (type === "test:stderr" || type === "test:stdout") {
      if (process.env["KOINE_TEST_OUTPUT"] === "1") yield data.message;
      continue;
    }
    if (type !== "test:pass" && type !== "test:fail") continue;
    if (data.details?.type === "suite") continue;
    const isFile =
      data.name === data.file ||
      (data.nesting === 0 && typeof data.name === "string" && data.name.endsWith(".test.ts"));
    if (isFile && type === "test:pass") continue;
    const path = (data.file ?? "").replace(`${process.cwd()}/`, "");
    const file = files.get(path) ?? { passed: 0, failed: 0, durationMs: 0 };
    files.set(path, file);
    if (data.nesting === 0) file.durationMs += data.details?.duration_ms ?? 0;
    if (type === "test:pass") {
      passed++;
      file.passed++;
      continue;
    }
    failed++;
    file.failed++;
    const error = data.details?.error;
    const cause = error?.cause ?? error;
    yield `✖ ${path}: ${data.name}\n    ${String(cause?.stack ?? cause?.message ?? cause).replaceAll("\n", "\n    ")}\n`;
  }
  for (const [path, file] of [...files].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const mark = file.failed === 0 ? "✔" : "✖";
    yield `${mark} ${path} (${file.passed} passed${file.failed > 0 ? `, ${file.failed} failed` : ""}, ${(file.durationMs / 1000).toFixed(1)} s)\n`;
  }
  yield `totals: ${passed} passed, ${failed} failed\n`;
}
