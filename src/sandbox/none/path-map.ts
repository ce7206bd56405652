import type { Mount } from "../sandbox.ts";

/** Where the targets of mounts really are. The longest target that fits a path decides. */
export class PathMap {
  #mounts: readonly Mount[] = [];

  constructor(mounts: readonly Mount[]) {
    for (const mount of mounts) this.add(mount);
  }

  add(mount: Mount): void {
    const others = this.#mounts.filter((other) => other.target !== mount.target);
    this.#mounts = [...others, mount].toSorted((a, b) => b.target.length - a.target.length);
  }

  toOutside(insidePath: string): string {
    for (const { source, target } of this.#mounts) {
      if (insidePath === target || insidePath.startsWith(`${target}/`)) return source + insidePath.slice(target.length);
    }
    return insidePath;
  }

  /**
   * Puts real paths into an argument or the value of a variable: where it is a path, a list of paths, or an option with one
   * (`--import=/koine/x.mjs`, `/a:/b`). Text in which a path comes after something else stays as it is.
   */
  translate(text: string): string {
    return text
      .split(/([:=,])/)
      .map((part) => this.toOutside(part))
      .join("");
  }
}
