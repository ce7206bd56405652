import assert from "node:assert/strict";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { byFork, byPosixSpawn } from "./start.ts";
import { keepDescriptors } from "./syscalls.ts";

keepDescriptors();
for (const starter of [byPosixSpawn(), byFork()]) {
  if (starter === null) continue;
  const shell = (script: string) => starter.start("/bin/sh", ["-c", script, "koine"], 6);

  test(`by ${starter.how}: a program is told of by its exit code or signal`, async () => {
    assert.deepEqual(await shell("exit 7").ended, { exitCode: 7, signal: null });
    assert.deepEqual(await shell("kill -TERM $$").ended, { exitCode: null, signal: "SIGTERM" });
  });

  test(`by ${starter.how}: channels lead both ways, and what was written last is not lost`, async () => {
    const started = shell("read -r line <&3; echo out $line; echo err >&2; echo back >&3");
    started.pipe(3).write("line\n");
    const back = text(started.pipe(3));
    await started.ended;
    assert.deepEqual(
      [await text(started.pipe(1)), await text(started.pipe(2)), await back],
      ["out line\n", "err\n", "back\n"],
    );
  });

  test(`by ${starter.how}: a program has its channels, an empty environment and nothing else`, async () => {
    const started = shell("ls /proc/self/fd; env | grep -v -e ^PWD -e ^_ -e ^SHLVL -e ^OLDPWD");
    // ls itself opens the folder it lists.
    assert.equal((await text(started.pipe(1))).trim().split("\n").join(), "0,1,2,3,4,5,6,7");
    await started.ended;
  });

  test(`by ${starter.how}: signals that the platform ignores are not ignored inside`, async () => {
    const started = shell("grep SigIgn /proc/self/status");
    assert.match(await text(started.pipe(1)), /^SigIgn:\t0{16}$/m);
    await started.ended;
  });

  test(`by ${starter.how}: a program that is not there is an error`, () => {
    assert.throws(() => starter.start("/bin/no-such-program", [], 6));
    assert.throws(() => starter.start("/bin/sh", ["-c", "\0"], 6));
  });
}
