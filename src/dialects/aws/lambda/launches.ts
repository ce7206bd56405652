import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { invalid } from "./names.ts";
import type { Launch } from "./runtimes.ts";

/**
 * What goes on after an answer is held until the next call: soon enough for code that counts on it, without the cost of doing it between
 * calls that follow each other.
 */
const FREEZE_AFTER_MS = 50;
/** Extensions may begin later than the runtime, and do their work after it. */
const FREEZE_AFTER_EXTENSIONS_MS = 3_000;
const CLIENT_CLASS = "com/amazonaws/services/lambda/runtime/api/client/AWSLambda.class";
const CLIENT_JAR = /runtime-interface-client.*\.jar$/;

/**
 * What is launched, now that there are folders to look into: a program of a layer where the package has none.
 * @throws AwsError `InvalidParameterValueException` for a Java function without the client that runs it
 */
export async function placedLaunch(
  launched: Launch,
  folders: { readonly code: string; readonly layers: string | null },
): Promise<Launch> {
  return withExtensions(await placed(launched, folders), folders.layers);
}

/** Whether programs of layers run beside the function's own. */
function hasExtensions(layers: string | null): boolean {
  return layers !== null && existsSync(join(layers, "extensions"));
}

/** Programs that layers brought are started beside the function's own, which then takes the place of the shell. */
function withExtensions(launched: Launch, layers: string | null): Launch {
  const { command } = launched;
  const freezeAfterMs = hasExtensions(layers) ? FREEZE_AFTER_EXTENSIONS_MS : FREEZE_AFTER_MS;
  if (command === undefined || !hasExtensions(layers)) return { ...launched, freezeAfterMs };
  return { ...launched, freezeAfterMs, command: ["/bin/sh", "-c", START_EXTENSIONS, "bootstrap", ...command] };
}

/** They ask at the port where the platform's services are; the runtime's own is another. */
const START_EXTENSIONS = [
  'for extension in /opt/extensions/*; do if [ -f "$extension" ] && [ -x "$extension" ]; then',
  'AWS_LAMBDA_RUNTIME_API="${AWS_ENDPOINT_URL#http://}" "$extension" & fi; done; exec "$@"',
].join(" ");

async function placed(
  launched: Launch,
  folders: { readonly code: string; readonly layers: string | null },
): Promise<Launch> {
  const { code, layers } = folders;
  if (launched.runtime === "custom") {
    if (existsSync(join(code, "bootstrap")) || layers === null || !existsSync(join(layers, "bootstrap")))
      return launched;
    return { ...launched, command: ["/opt/bootstrap"] };
  }
  if (!launched.runtime.startsWith("java")) return launched;
  const jars = [join(code, "lib"), ...(layers === null ? [] : [join(layers, "java", "lib")])].map(async (folder) =>
    (await readdir(folder).catch(() => [])).some((name) => CLIENT_JAR.test(name)),
  );
  if (existsSync(join(code, CLIENT_CLASS)) || (await Promise.all(jars)).includes(true)) return launched;
  throw invalid(
    "Java functions are run by com.amazonaws:aws-lambda-java-runtime-interface-client, which is not in the package: put it and what it needs into lib/ of the package, or into java/lib/ of a layer.",
  );
}
