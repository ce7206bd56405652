/** Streams of functions' groups: `2026/01/31/[VERSION]` and 32 digits of the instance's id, which begin with the time at which it was made. */
export function streamNameOf(instanceId: string, version: string): string {
  const digits = instanceId.replaceAll("-", "");
  const madeAtMs = Number.parseInt(digits.slice(0, 12), 16);
  const day = Number.isNaN(madeAtMs)
    ? "1970/01/01"
    : new Date(madeAtMs).toISOString().slice(0, 10).replaceAll("-", "/");
  return `${day}/[${version}]${digits}`;
}

/** The instance that a stream is of; null for streams that are of none. */
export function instanceIdOf(streamName: string): string | null {
  const [, digits] = /^\d{4}\/\d{2}\/\d{2}\/\[[^\]]+\]([0-9a-f]{32})$/.exec(streamName) ?? [];
  if (digits === undefined) return null;
  return [digits.slice(0, 8), digits.slice(8, 12), digits.slice(12, 16), digits.slice(16, 20), digits.slice(20)].join(
    "-",
  );
}
