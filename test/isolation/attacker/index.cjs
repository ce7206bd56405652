// Attacks in JavaScript, and those of attack.c as child processes. Each answers { took } or { refused }.
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const { join } = require("node:path");

const TOLD_LENGTH_MAX = 4_000;
const SEARCHED_BYTES_MAX = 64 * 1024 * 1024;

exports.handler = async ({ attack, args, scratch }) => {
  fs.mkdirSync(scratch, { recursive: true });
  try {
    return { took: String(await attacks[attack](...args)).slice(0, TOLD_LENGTH_MAX) };
  } catch (thrown) {
    return { refused: `${thrown.syscall ?? thrown.name}: ${thrown.code ?? thrown.message}` };
  }
};

const attacks = {
  read: (path) => fs.readFileSync(path, "latin1"),

  list: (path) => fs.readdirSync(path).join(" "),

  /** Opened only: nothing is written. */
  open(path, flags) {
    fs.closeSync(
      fs.openSync(path, flags === "w" ? fs.constants.O_WRONLY : fs.constants.O_RDONLY | fs.constants.O_NONBLOCK),
    );
    return "opened";
  },

  /** The first of these that can be opened for writing. */
  openOneOf(...paths) {
    let last = new Error("there is none");
    for (const path of paths) {
      try {
        return `${path} ${attacks.open(path, "w")}`;
      } catch (thrown) {
        last = thrown;
      }
    }
    throw last;
  },

  create(path) {
    fs.writeFileSync(path, "x", { flag: "wx" });
    fs.rmSync(path);
    return "created";
  },

  /** Beside this code. */
  createBeside: () => attacks.create(join(__dirname, "written")),
  changeOwnCode: () => attacks.open(__filename, "w"),

  hardLink(path, link) {
    fs.linkSync(path, link);
    fs.rmSync(link);
    return "linked";
  },

  symbolicLink(path) {
    const link = join(process.env.TMPDIR ?? "/tmp", `link-${process.hrtime.bigint()}`);
    fs.symlinkSync(path, link);
    try {
      return fs.readFileSync(link, "latin1");
    } finally {
      fs.rmSync(link);
    }
  },

  /** Every match in the files below a folder. */
  search(folder, pattern) {
    const found = new Set();
    let left = SEARCHED_BYTES_MAX;
    for (const entry of fs.readdirSync(folder, { withFileTypes: true, recursive: true })) {
      if (!entry.isFile() || left < 0) continue;
      const content = fs.readFileSync(join(entry.parentPath, entry.name), "latin1").slice(0, left);
      left -= content.length;
      for (const match of content.matchAll(new RegExp(pattern, "g"))) found.add(match[0]);
    }
    return [...found].join(" ");
  },

  /** What the environments of all processes that can be seen hold. */
  environments: (pattern) => searchProcesses(pattern, (pid) => fs.readFileSync(`/proc/${pid}/environ`, "latin1")),

  commands: (pattern) => searchProcesses(pattern, (pid) => fs.readFileSync(`/proc/${pid}/cmdline`, "latin1")),

  /** What was left open to this process by those who started it. */
  inherited: (pattern) =>
    searchProcesses(pattern, (pid) =>
      fs
        .readdirSync(`/proc/${pid}/fd`)
        .map((name) => readLink(`/proc/${pid}/fd/${name}`))
        .join(" "),
    ),

  devices() {
    const usual =
      /^(console|fd|full|null|ptmx|pts|random|shm|stderr|stdin|stdout|tty|urandom|zero|core|mqueue|log|hugepages)$/;
    const opened = fs.readdirSync("/dev").filter((name) => {
      if (usual.test(name) || /^tty|^vcs|watchdog|^rtc|^rfkill/.test(name)) return false;
      try {
        return attacks.open(`/dev/${name}`, "r") === "opened" && !fs.statSync(`/dev/${name}`).isDirectory();
      } catch {
        return false;
      }
    });
    if (opened.length === 0) throw Object.assign(new Error("there are none"), { code: "ENOENT", syscall: "open" });
    return opened.join(" ");
  },

  connect: (target) =>
    new Promise((resolve, reject) => {
      const socket = net.connect(target);
      socket.setTimeout(5_000, () => socket.destroy(Object.assign(new Error("silence"), { code: "ETIMEDOUT" })));
      socket
        .on("error", reject)
        .on("connect", () => socket.write("GET /v1/namespaces/default/functions HTTP/1.0\r\n\r\n"));
      let said = "";
      // Some answer until they are told that it is enough.
      socket.on("data", (bytes) => {
        said += bytes;
        socket.end();
      });
      socket.on("end", () =>
        said === "" ? reject(Object.assign(new Error("closed"), { code: "ECONNRESET" })) : resolve(said),
      );
    }),

  /** A listener that others could reach. */
  listen: (host, port) =>
    new Promise((resolve, reject) => {
      const server = net.createServer((socket) => socket.end("a listener of the attacker's"));
      server.on("error", reject).listen(port, host, () => resolve(server.address().port));
      server.unref();
    }),

  program: (...args) =>
    new Promise((resolve, reject) => {
      const child = spawn(join(__dirname, "attack"), args, {
        stdio: ["ignore", "pipe", "pipe"],
        timeout: 20_000,
        killSignal: "SIGKILL",
      });
      let said = "";
      child.stdout.on("data", (bytes) => (said += bytes));
      child.stderr.on("data", (bytes) => (said += bytes));
      child.on("error", reject);
      child.on("close", (code, signal) => {
        if (said.startsWith("took: ")) resolve(said.slice(6).trim());
        else if (said.startsWith("refused: "))
          reject(Object.assign(new Error(said), { syscall: "", code: said.slice(9).trim() }));
        // The filter ends whoever uses numbers of another architecture.
        else reject(Object.assign(new Error(said), { syscall: "the end", code: `${signal ?? code} ${said}`.trim() }));
      });
    }),

  /** Everybody who can be reached gets a signal that nobody minds. */
  signalAll() {
    process.kill(-1, "SIGURG");
    return "a signal was sent";
  },
};

function searchProcesses(pattern, readOf) {
  const found = new Set();
  for (const pid of fs.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name) && Number(name) !== process.pid)) {
    try {
      for (const match of readOf(pid).matchAll(new RegExp(pattern, "g"))) found.add(match[0]);
    } catch {
      // It has ended, or is another's.
    }
  }
  if (found.size === 0) throw Object.assign(new Error("nothing was found"), { code: "ENOENT", syscall: "search" });
  return [...found].join(" ");
}

function readLink(path) {
  try {
    return fs.readlinkSync(path);
  } catch {
    return "";
  }
}
