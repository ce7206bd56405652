/** The Node that koine runs on; the packages of package.json's optionalDependencies carry it. */
export const NODE_MAJOR = 26;

/** Name of the package that holds Node for this machine. */
export function nodePackageName() {
  return `node-${process.platform}-${process.arch}`;
}
