import type { FunctionSpec } from "../../../core/function.ts";
import { invalid } from "./names.ts";

/** What of a spec says how its code is run. */
export type Launch = Pick<FunctionSpec, "runtime" | "handler" | "handlerModel"> &
  Partial<Pick<FunctionSpec, "protocol" | "image" | "command" | "freezeAfterMs">>;

/** Runtimes whose functions bring their own program. */
export const PROVIDED = /^provided(?:\.al2(?:023)?)?$|^go1\.x$/;

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
  if (PROVIDED.test(runtime))
    return {
      runtime: "custom",
      handler,
      handlerModel: "auto",
      protocol: "lambda-runtime-api",
      command: ["/code/bootstrap"],
    };
  const found = nodeOrPython(runtimes, runtime);
  if (found !== null) return { runtime: found, handler, handlerModel: "lambda" };
  const java = javaOf(runtimes, runtime);
  if (java !== null)
    return { ...java, handler, handlerModel: "auto", protocol: "lambda-runtime-api", command: javaCommand(handler) };
  if (/^(?:ruby|dotnet)/.test(runtime)) {
    const how = runtime.startsWith("ruby")
      ? "an image with Ruby and the gem aws_lambda_ric, or provided.al2023 with a 'bootstrap' that starts it"
      : "an image, or provided.al2023 with a self-contained program called 'bootstrap'";
    throw invalid(`The platform has no runtime '${runtime}' of its own. What runs such functions here: ${how}.`);
  }
  const known = "nodejs18.x to nodejs26.x, python3.8 to python3.14, java8.al2 to java25, provided.al2, provided.al2023";
  throw invalid(`Value ${runtime} at 'runtime' failed to satisfy constraint: this platform runs ${known}`);
}

function nodeOrPython(runtimes: ReadonlyMap<string, unknown>, name: string): string | null {
  if (/^(?:nodejs|python)/.test(name) && runtimes.has(name)) return name;
  if (/^python3\.\d+$/.test(name)) return runtimes.has("python3") ? "python3" : null;
  const major = Number(/^nodejs(\d+)\.x$/.exec(name)?.[1] ?? Number.NaN);
  if (!(major >= 10)) return null;
  const newer = [...runtimes.keys()]
    .map((each) => Number(/^nodejs(\d+)\.x$/.exec(each)?.[1] ?? Number.NaN))
    .filter((each) => each >= major)
    .sort((a, b) => a - b);
  return newer[0] === undefined ? null : `nodejs${newer[0]}.x`;
}

const JAVA_CLIENT = "com.amazonaws.services.lambda.runtime.api.client.AWSLambda";

/** The Java that runs a function of this one: what was compiled for an older one runs on newer ones. */
function javaOf(runtimes: ReadonlyMap<string, unknown>, name: string): { readonly runtime: string } | null {
  const wanted = Number(/^java(\d+)(?:\.al2)?$/.exec(name)?.[1] ?? Number.NaN);
  const majors = [...runtimes.keys()].map((each) => Number(/^java(\d+)$/.exec(each)?.[1] ?? Number.NaN));
  const [major] = majors.filter((each) => each >= wanted).sort((a, b) => a - b);
  return major === undefined ? null : { runtime: `java${major}` };
}

/** The vendor's own client, out of the package or a layer, runs the handler. */
function javaCommand(handler: string): readonly string[] {
  const classes = "/code:/code/lib/*:/opt/java/lib/*";
  // A dollar sign would name a variable.
  const escaped = handler.replaceAll("$", "$$$$");
  return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", classes, JAVA_CLIENT, escaped];
}
