// `node --import` of this makes a platform that acknowledges before it syncs: the harness must find out. Nothing of the platform knows of it.
import { DatabaseSync } from "node:sqlite";
import { syncBuiltinESMExports } from "node:module";
import fs from "node:fs";

const { exec } = DatabaseSync.prototype;
/** @param {string} text */
DatabaseSync.prototype.exec = function (text) {
  return exec.call(this, text.replaceAll("synchronous = FULL", "synchronous = NORMAL"));
};
fs.fdatasyncSync = () => {};
fs.fsyncSync = () => {};
syncBuiltinESMExports();
