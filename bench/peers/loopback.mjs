// Loaded before peers that listen on every address of the machine by default: here nobody but this machine may reach them.
import { Server } from "node:net";

const { listen } = Server.prototype;
/**
 * @this {Server}
 * @param {unknown[]} args
 * @returns {Server}
 */
function listenOnLoopback(...args) {
  const [first, second] = args;
  const options = typeof first === "object" && first !== null ? first : null;
  const port = options !== null && "port" in options ? options.port : first;
  const named = typeof second === "string" || (options !== null && "host" in options && options.host !== undefined);
  if (named || !/^\d+$/.test(String(port))) return Reflect.apply(listen, this, args);
  const callback = args.find((argument) => typeof argument === "function");
  const where = { port: Number(port), host: "127.0.0.1" };
  return Reflect.apply(listen, this, callback === undefined ? [where] : [where, callback]);
}
Server.prototype.listen = listenOnLoopback;
