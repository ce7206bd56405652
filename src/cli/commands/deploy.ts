import { type Command, Option } from "commander";
import { inPackage } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import type { Deployment } from "../deployment.ts";
import { deployProject } from "../deployment.ts";
import type { DeployFlags } from "../plan.ts";
import { formatDuration } from "../quantity.ts";
import { addDeployOptions } from "./deploy-options.ts";

export function addDeploy(parent: Command, cli: Cli): void {
  const command = defineCommand(parent, "deploy [path]", {
    summary: "Deploy a folder, a single file or an image as a function",
    detail:
      "What the options leave open comes from koine.json in the folder, else from what the folder holds.\n" +
      "Prints the function's URL; deploying what is there already changes nothing.",
    examples: [
      "koine deploy .",
      "koine deploy hello.mjs --name hello --memory 128MB --timeout 10s",
      "koine deploy --image ghcr.io/you/api:1.4 --name api --registry-secret GHCR_LOGIN",
      "koine deploy ./api -e LOG_LEVEL=debug --secret DATABASE_URL --no-live",
      "koine deploy . --protocol http --command './server --port $PORT'",
    ],
  });
  addDeployOptions(command)
    .option("--image <name>", "an image instead of a folder: NAME[:TAG] or NAME@sha256:…")
    .addOption(new Option("--build <what>", "make an image of the folder, by its Dockerfile").choices(["image"]))
    .option("--dockerfile <file>", "the Dockerfile, relative to the folder; implies --build image")
    .option("--registry-secret <name>", "secret of USER:PASSWORD for the image's registry")
    .option("--no-check", "do not load the handler before the version goes live")
    .option("--no-live", "make the version without sending calls to it")
    .action(
      withSession(cli, async (session, path: string | undefined, flags: DeployFlags) => {
        await deploy(session, path, flags);
      }),
    );
}

async function deploy(session: Session, path: string | undefined, flags: DeployFlags): Promise<void> {
  const { io, output } = session;
  const startMs = io.clock.monotonicMs();
  const deployment = await deployProject(session, { path, flags, progress: output.progress() });
  for (const note of deployment.plan.notes) output.note(note);
  output.done(`${changeOf(deployment)} in ${formatDuration(io.clock.monotonicMs() - startMs)}`);
  for (const trigger of deployment.triggers)
    output.done(`trigger ${trigger.name}: ${trigger.kind}${trigger.route === null ? "" : ` at ${trigger.route}`}`);
  const { version } = deployment.result;
  const url = urlOf(session, deployment) + (version.live ? "" : `:${version.number}`);
  output.show(deployment.result, () => url);
  const token = session.settings.token !== null && version.spec.access === "token";
  const authorization = token ? ` -H "Authorization: Bearer $KOINE_TOKEN"` : "";
  output.note(`  try  curl${authorization} '${url}'`);
}

/** Where the live version is called. */
export function urlOf(session: Session, { result }: Deployment): string {
  return session.client.address(result.function.path);
}

/** What a deploy did, in a sentence without an end. */
export function changeOf({ plan, result }: Deployment): string {
  const name = inPackage(plan.ref);
  const { number, live } = result.version;
  const place = live ? "live" : `not live; 'koine publish ${name} ${number}' makes it so`;
  switch (result.change) {
    case "created":
      return `created ${name}, version ${number}, ${place}`;
    case "updated":
      return `updated ${name} to version ${number}, ${place}`;
    case "unchanged":
      return `${name} is unchanged: version ${number}, ${place}`;
    default:
      return result.change satisfies never;
  }
}
