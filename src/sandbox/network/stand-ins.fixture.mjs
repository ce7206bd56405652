// The far side of a test's own network: listens on addresses that stand in for the internet, a metadata service and a private host.
// Answers every TCP connection with the address it came to and then what it is sent, UDP on port 9999 likewise, and questions for names.
import { createSocket } from "node:dgram";
import { createServer } from "node:net";

const names = new Map([
  ["internet.test", "1.1.1.1"],
  ["db.test", "10.1.2.3"],
]);

// The addresses are there once a line has come.
process.stdin.once("data", () => void serve());

async function serve() {
  const streams = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    socket.write(`${socket.localAddress?.replace("::ffff:", "")}\n`);
    socket.pipe(socket);
  });
  await new Promise((resolve) => streams.listen(80, "::", () => resolve(null)));
  const echo = createSocket("udp4");
  echo.on("message", (packet, from) => echo.send(`echo ${packet}`, from.port, from.address));
  await new Promise((resolve) => echo.bind(9999, "1.1.1.1", () => resolve(null)));
  const resolver = createSocket("udp4");
  resolver.on("message", (question, from) => resolver.send(answerTo(question), from.port, from.address));
  await new Promise((resolve) => resolver.bind(53, "1.1.1.53", () => resolve(null)));
  process.stdout.write("up\n");
}

/** @param {Buffer} question */
function answerTo(question) {
  const labels = [];
  let at = 12;
  for (let length = question[at] ?? 0; length > 0; length = question[at] ?? 0) {
    labels.push(question.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  const type = question.readUInt16BE(at + 1);
  const address = names.get(labels.join(".").toLowerCase());
  const isAnswered = type === 1 && address !== undefined;
  const header = Buffer.from(question.subarray(0, 12));
  // An answer, recursion available; no such name where there is none.
  header.writeUInt16BE(address === undefined ? 0x8183 : 0x8180, 2);
  header.writeUInt16BE(isAnswered ? 1 : 0, 6);
  header.writeUInt32BE(0, 8);
  const parts = [header, question.subarray(12, at + 5)];
  if (isAnswered) parts.push(Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...address.split(".").map(Number)]));
  return Buffer.concat(parts);
}
