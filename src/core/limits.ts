/** Every bound of the platform in one place; `docs/limits.md` is generated from these names and comments. */
const KIB = 1024;
const MIB = 1024 * KIB;

export const limits = {
  /** Longest name of a function, package, namespace, alias or secret, in characters. */
  nameLengthMax: 64,
  /** Sum of all environment names and values of one function, in bytes. */
  environmentBytesMax: 32 * KIB,
  /** Most environment variables plus secrets of one function. */
  environmentEntriesMax: 256,
  /** Largest secret value, in bytes. */
  secretBytesMax: 64 * KIB,

  /** Smallest, default and largest memory of an instance, in bytes. */
  memoryBytesMin: 32 * MIB,
  memoryBytesDefault: 256 * MIB,
  memoryBytesMax: 32 * 1024 * MIB,
  /** Smallest, default and largest time one invocation may take, in milliseconds. */
  timeoutMsMin: 50,
  timeoutMsDefault: 30_000,
  timeoutMsMax: 6 * 3_600_000,
  /** Time that loading a handler may take, in milliseconds. */
  loadTimeoutMs: 10_000,
  /** Time that booting a sandbox to its ready message may take, in milliseconds. */
  bootTimeoutMs: 15_000,
  /** Most invocations one instance may serve at a time. */
  instanceConcurrencyMax: 1_000,
  /** Most slots one function may be given. */
  reservedConcurrencyMax: 10_000,
  /** Processes and threads in one sandbox. */
  sandboxPidsMax: 256,
  /** Bytes in a sandbox's private /tmp. */
  sandboxTmpBytesMax: 512 * MIB,
  /** Open files of one process in a sandbox. */
  sandboxOpenFilesMax: 4_096,
  /** Largest single file that code in a sandbox may write, in bytes. */
  sandboxFileBytesMax: 512 * MIB,

  /** Invocations that may wait for a slot, per version. */
  waitQueueLengthMax: 1_000,
  /** Longest wait for a slot, in milliseconds. */
  waitQueueMsMax: 30_000,
  /** Instances of all functions on one node. */
  instancesMax: 1_000,
  /** Idle time after which an instance is stopped while little is known of its function, in milliseconds, unless the function says. */
  idleTimeoutMsDefault: 60_000,
  idleTimeoutMsMax: 24 * 3_600_000,
  /** Idle time after which an instance is frozen, so that it uses no processor time, in milliseconds. */
  freezeAfterMs: 10_000,
  /** Starts of one version that may fail in a row before further calls are answered at once, for a while. */
  startFailuresMax: 3,
  startBackoffMsMax: 10_000,

  /** Largest request body of an invocation, in bytes. */
  requestBodyBytesMax: 100 * MIB,
  /** Largest request body that is kept for an asynchronous invocation, in bytes. */
  asyncBodyBytesMax: 1 * MIB,
  /** Request bodies up to this size travel to the instance in one frame, in bytes. */
  inlineBodyBytesMax: 256 * KIB,
  /** Largest body of a call to the management API, in bytes. */
  managementBodyBytesMax: 1 * MIB,
  /** Largest result that is kept with an asynchronous activation, in bytes. */
  resultBytesMax: 256 * KIB,
  /** Largest frame between engine and instance, in bytes. */
  frameBytesMax: 16 * MIB,
  /** Bytes that may be in flight per invocation and direction before the sender must wait. */
  streamWindowBytes: 256 * KIB,
  /** Largest head of an HTTP request, in bytes. */
  headerBytesMax: 32 * KIB,
  /** Time that a client may take to send a request's head, and each part of its body, in milliseconds. */
  requestSlownessMsMax: 60_000,
  /** Time for which a connection without a request stays open, in milliseconds. */
  keepAliveMsMax: 65_000,
  /** Time that a client gets to read the last answer and to close, in milliseconds. */
  lingerMsMax: 5_000,

  /** Longest log line; what is longer is cut with a notice, in bytes. */
  logLineBytesMax: 16 * KIB,
  /** Log bytes kept per invocation; what follows is counted and dropped with a notice. */
  logBytesPerInvocationMax: 1 * MIB,
  /** Live followers of logs at a time. */
  logFollowersMax: 100,

  /** Largest uploaded archive and largest unpacked code package, in bytes; most files in one. */
  archiveBytesMax: 250 * MIB,
  packageBytesMax: 1024 * MIB,
  packageFilesMax: 100_000,
  /** Longest path of a file in a code package, and longest target of a link, in bytes. */
  packagePathBytesMax: 1_024,
  /** Longest installation of a package's dependencies, in milliseconds. */
  buildTimeoutMs: 10 * 60_000,
  /** Memory, /tmp and processes of an installation, in bytes and count. */
  buildMemoryBytesMax: 2048 * MIB,
  buildTmpBytesMax: 2048 * MIB,
  buildPidsMax: 512,
  /** Installations at a time on one node, and how many more may wait. */
  buildsMax: 2,
  buildsWaitingMax: 100,

  /** Time after which a code package that nothing refers to is removed, in milliseconds. */
  unusedPackageMs: 60 * 60_000,

  /** Versions kept per function; the oldest that nothing points to are removed first. */
  versionsPerFunctionMax: 50,
  /** Compiled code that is kept of one package, in bytes and files. */
  codeCacheBytesMax: 64 * MIB,
  codeCacheFilesMax: 5_000,
  /** Functions on one platform. */
  functionsMax: 100_000,

  /** Activations and logs are removed when older, in milliseconds, or when all together are larger, in bytes. */
  activationRetentionMs: 7 * 24 * 3_600_000,
  journalBytesMax: 1024 * MIB,

  /** Accepted asynchronous invocations that wait, per platform. */
  queueLengthMax: 1_000_000,
  /** Attempts of an asynchronous invocation, the first included, and the age at which it is given up, in milliseconds. */
  asyncAttemptsMax: 3,
  asyncAgeMsMax: 6 * 3_600_000,
  /** Time for which queued work is claimed before another may take it, in milliseconds. */
  leaseMs: 60_000,
  /** Dead letters kept per platform; the oldest are removed first. */
  deadLettersMax: 10_000,
  /** Longest time between two looks at the queue when nothing wakes its dispatcher, in milliseconds. */
  queuePollMs: 10_000,
  /** Activations and log lines that may wait to be written, and the memory they may take, in bytes; beyond, the oldest lines are dropped and counted. */
  appendBacklogRecordsMax: 100_000,
  appendBacklogBytesMax: 64 * MIB,

  /** Results per page of a listing: default and most. */
  pageSizeDefault: 50,
  pageSizeMax: 1_000,
  /** Time that running invocations get to end when the platform stops, in milliseconds. */
  drainMsMax: 30_000,
} as const;

export type Limits = typeof limits;
