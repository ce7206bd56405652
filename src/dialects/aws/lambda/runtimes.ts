import type { FunctionSpec } from "../../../core/function.ts";
import { invalid } from "./names.ts";

type Launch = Pick<FunctionSpec, "runtime" | "handler" | "handlerModel"> &
  Partial<Pick<FunctionSpec, "protocol" | "image" | "command">>;

/** How the managed runtimes of the API are run here; the exact version where the platform has it, else the next one that runs the same code. */
export function chooseRuntime(
  runtimes: ReadonlyMap<string, unknown>,
  wanted: { readonly runtime: string | undefined; readonly handler: string; readonly image: string | undefined },
): Launch {
  const { runtime, handler, image } = wanted;
  if (image !== undefined)
    return { runtime: "image", handler: "image", handlerModel: "auto", protocol: "lambda-runtime-api", image };
  if (runtime === undefined)
    throw invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.");
  if (handler === "")
    throw invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.");
  if (/^provided(?:\.al2(?:023)?)?$|^go1\.x$/.test(runtime))
    return {
      runtime: "custom",
      handler,
      handlerModel: "auto",
      protocol: "lambda-runtime-api",
      command: ["/code/bootstrap"],
    };
  const found = nodeOrPython(runtimes, runtime);
  if (found !== null) return { runtime: found, handler, handlerModel: "lambda" };
  const known = "nodejs18.x to nodejs26.x, python3.8 to python3.14, provided.al2, provided.al2023";
  throw invalid(`Value ${runtime} at 'runtime' failed to satisfy constraint: this platform runs ${known}`);
}

function nodeOrPython(runtimes: ReadonlyMap<string, unknown>, name: string): string | null {
  if (runtimes.has(name)) return name;
  if (/^python3\.\d+$/.test(name)) return runtimes.has("python3") ? "python3" : null;
  const major = Number(/^nodejs(\d+)\.x$/.exec(name)?.[1] ?? Number.NaN);
  if (!(major >= 10)) return null;
  const newer = [...runtimes.keys()]
    .map((each) => Number(/^nodejs(\d+)\.x$/.exec(each)?.[1] ?? Number.NaN))
    .filter((each) => each >= major)
    .sort((a, b) => a - b);
  return newer[0] === undefined ? null : `nodejs${newer[0]}.x`;
}
