import { usageFailure } from "./failure.ts";
import type { DeployFlags } from "./plan.ts";
import type { ProjectFile } from "./project-file.ts";
import { nameFrom } from "./project.ts";
import type { ProjectFolder } from "./project-folder.ts";

/** Where a function's code comes from when it is an image. */
export type ImageSource =
  | { readonly kind: "image"; readonly image: string }
  /** Built from the folder; `dockerfile` is a path in it. */
  | { readonly kind: "build"; readonly dockerfile: string };

const DOCKERFILES = ["Dockerfile", "Containerfile"];

/**
 * The image that was asked for; null: none was.
 * @throws CliFailure `usage`
 */
export function chosenImage(folder: ProjectFolder, flags: DeployFlags, file: ProjectFile): ImageSource | null {
  const image = flags.image ?? (flags.build === undefined ? file.image : undefined);
  const dockerfile = flags.dockerfile ?? file.dockerfile;
  const builds = flags.build === "image" || dockerfile !== undefined;
  if (flags.image !== undefined && (flags.build !== undefined || flags.dockerfile !== undefined)) {
    throw usageFailure("--image names an image that exists; --build and --dockerfile make one", "Use one of them.");
  }
  if (image !== undefined) return { kind: "image", image };
  if (!builds) return null;
  const found = dockerfile ?? dockerfileIn(folder);
  if (found !== undefined) return { kind: "build", dockerfile: found };
  throw usageFailure(`There is no Dockerfile in ${folder.path}`, "Say which file it is with --dockerfile.");
}

/** The folder's own, if it has one. */
export function dockerfileIn({ facts }: ProjectFolder): string | undefined {
  return DOCKERFILES.find((name) => facts.files.includes(name));
}

/** `nginx` of `docker.io/library/nginx:1.27`; undefined when nothing of it can be used. */
export function nameOfImage(image: string): string | undefined {
  const [path = ""] = image.split("@");
  return nameFrom((path.split("/").at(-1) ?? "").replace(/:.*$/, ""));
}
