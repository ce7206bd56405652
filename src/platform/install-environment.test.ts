import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { installEnvironment, type InstallEnvironment } from "./install-environment.ts";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "koine-install-"));
  await writeFile(join(folder, "ca.pem"), "certificates");
  await mkdir(join(folder, "wheels"));
});
after(() => rm(folder, { recursive: true, force: true }));

function find(
  environment: Readonly<Record<string, string>>,
  answers: { readonly npm?: object; readonly pip?: string } = {},
): Promise<InstallEnvironment> {
  return installEnvironment({
    environment,
    insideFolder: "/inside",
    async ask(command) {
      if (command === "npm" && answers.npm !== undefined) return JSON.stringify(answers.npm);
      if (command === "python3" && answers.pip !== undefined) return answers.pip;
      throw new Error(`there is no ${command}`);
    },
  })();
}

const text = (found: InstallEnvironment, name: string) => found.files.get(name)?.toString() ?? "";

test("proxies and certificates are passed on, and nothing else of the platform's environment", async () => {
  const found = await find({
    HTTPS_PROXY: "http://user:secret@proxy:8080",
    no_proxy: "localhost,.example",
    NODE_EXTRA_CA_CERTS: join(folder, "ca.pem"),
    SSL_CERT_FILE: join(folder, "ca.pem"),
    CURL_CA_BUNDLE: join(folder, "missing.pem"),
    KOINE_TOKEN: "secret",
    NPM_TOKEN: "secret",
  });
  assert.deepEqual(found.variables, {
    HTTPS_PROXY: "http://proxy:8080",
    no_proxy: "localhost,.example",
    NODE_EXTRA_CA_CERTS: "/inside/certificates-0.pem",
    SSL_CERT_FILE: "/inside/certificates-0.pem",
    NPM_CONFIG_USERCONFIG: "/inside/npmrc",
    PIP_CONFIG_FILE: "/inside/pip.conf",
  });
  assert.equal(text(found, "certificates-0.pem"), "certificates");
});

test("npm's registries are passed on without credentials", async () => {
  const found = await find(
    {},
    {
      npm: {
        registry: "https://user:secret@npm.example/",
        "@acme:registry": "https://acme.example/",
        cafile: join(folder, "ca.pem"),
        "//npm.example/:_authToken": "secret",
        "https-proxy": null,
        "strict-ssl": true,
        prefix: "/usr",
      },
    },
  );
  const lines = text(found, "npmrc").split("\n");
  assert.ok(lines.includes('registry="https://npm.example/"'));
  assert.ok(lines.includes('@acme:registry="https://acme.example/"'));
  assert.ok(lines.includes('cafile="/inside/certificates-0.pem"'));
  assert.doesNotMatch(lines.join("\n"), /secret|prefix|https-proxy/);
});

test("pip's index and folders of wheels are passed on, and the environment's word counts more than a file's", async () => {
  const pip = [
    "global.index-url='https://user:secret@pypi.example/simple'",
    "global.timeout='10'",
    ":env:.default-timeout='180'",
    `global.cert='${join(folder, "ca.pem")}'`,
    `install.find-links='${join(folder, "wheels")}\\nhttps://wheels.example ${join(folder, "missing")}'`,
    "global.extra-index-url='\\nhttps://a.example\\nhttps://b:secret@b.example'",
    "user.password='secret'",
  ];
  const found = await find({}, { pip: pip.join("\n") });
  assert.equal(
    text(found, "pip.conf"),
    `[global]
disable-pip-version-check = 1
no-input = 1
index-url = https://pypi.example/simple
extra-index-url = https://a.example
    https://b.example
timeout = 180
cert = /inside/certificates-0.pem
find-links = /inside-packages-0
    https://wheels.example
`,
  );
  assert.deepEqual([...found.folders], [["/inside-packages-0", join(folder, "wheels")]]);
});

test("the machine is asked once, and only when first needed", async () => {
  let asked = 0;
  const environment = installEnvironment({
    environment: {},
    insideFolder: "/inside",
    ask: async () => `${++asked}`,
  });
  assert.equal(asked, 0);
  await Promise.all([environment(), environment()]);
  assert.equal(asked, 2);
});
