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
  /** Time from the launch of a function's own program until it can be used, in milliseconds. */
  programReadyMsMax: 60_000,
  /** Connections of one instance that wait for their next request, the time for which they do, and the time that a new one may take, in milliseconds. */
  programConnectionsIdleMax: 64,
  programConnectionIdleMsMax: 1_500,
  programConnectMsMax: 10_000,
  /** Largest head of an answer of a function's own program, in bytes. */
  programHeadBytesMax: 64 * KIB,
  /** Largest payload that travels whole to or from a function's own program (Lambda Runtime API, action proxy), in bytes. */
  programPayloadBytesMax: 6 * MIB + 100,
  /** Longest silence on a connection that was upgraded (WebSocket), and its longest life, in milliseconds. */
  upgradedIdleMsMax: 10 * 60_000,
  upgradedMsMax: 2 * 3_600_000,
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
  /** Smallest and largest share of the processors that a function may be given, in cores. */
  cpuCoresMin: 0.05,
  cpuCoresMax: 256,
  /** What code in a sandbox may print per second on average, and at once, in bytes; what is beyond is dropped, and the log says so. */
  outputBytesPerSecondMax: 1 * MIB,
  outputBurstBytesMax: 4 * MIB,

  /** Entries of one `--allow-network` list, the length of one in characters, and the ports of one entry for localhost. */
  networkRulesMax: 64,
  networkRuleLengthMax: 300,
  networkLocalPortsMax: 16,
  /** Connections that one sandbox may have open to the outside, and conversations over UDP. */
  egressConnectionsMax: 1_024,
  egressDatagramFlowsMax: 256,
  /** Time after which a connection to the outside that was not answered is given up, in milliseconds. */
  egressConnectMsMax: 30_000,
  /** Time after which a silent conversation over UDP is forgotten, in milliseconds. */
  egressDatagramIdleMs: 25_000,

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

  /** Containers that wait, started and without anything of the image's having run, for the next call of a function that was called lately; and how lately, in milliseconds. */
  containersAheadMax: 16,
  containerAheadMs: 10 * 60_000,
  /** Longest pull of an image, in milliseconds, and longest wait for a registry's word on what a tag means. */
  imagePullMs: 30 * 60_000,
  registryAnswerMs: 15_000,
  /** Longest line of a pull's or build's progress that is shown, in characters. */
  imageLineLengthMax: 4_000,

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

  /** Accepted asynchronous invocations that are not finished, per platform; one function may have as many as there is room left, so half at most. */
  queueLengthMax: 1_000_000,
  /** Age of a function's oldest queued work beyond which more of it is refused, in milliseconds. */
  queueAgeMsMax: 2 * 3_600_000,
  /** Time until which asynchronous work may be put off, in milliseconds. */
  delayMsMax: 366 * 24 * 3_600_000,
  /** Attempts of an asynchronous invocation, the first included, and the age at which it is given up, in milliseconds: defaults and most. */
  asyncAttemptsDefault: 3,
  asyncAttemptsMax: 101,
  asyncAgeMsDefault: 6 * 3_600_000,
  asyncAgeMsMax: 31 * 24 * 3_600_000,
  /** Longest wait between two attempts, in milliseconds. */
  retryDelayMsMax: 24 * 3_600_000,
  /** Attempts that are kept with an asynchronous invocation, the newest; and the length to which their error texts are cut. */
  attemptsKept: 20,
  attemptTextLengthMax: 2_000,
  /** Time that work of a lower priority waits longer than work of the next higher before it goes first, in milliseconds. */
  priorityAgeMs: 300_000,
  /** Time for which an idempotency key is remembered, in milliseconds, and the keys of a platform. */
  idempotencyWindowMs: 24 * 3_600_000,
  idempotencyKeysMax: 1_000_000,
  /** Longest ordering key and idempotency key, in characters. */
  queueKeyLengthMax: 256,
  /** Time for which queued work is claimed before another may take it, in milliseconds. */
  leaseMs: 60_000,
  /** Queued work that runs at a time, per node; one function may have half of what is left free. */
  asyncInFlightMax: 128,
  /** Dead letters of one function at which it takes no more asynchronous work; those that come all the same are kept. */
  deadLettersMax: 10_000,
  /** Dead letters that one call may replay or purge. */
  deadLettersPerCallMax: 1_000,
  /** Invocations in a row that may follow from each other by destinations. */
  destinationHopsMax: 16,
  /** Attempts to deliver to a URL or topic, and the age at which that is given up; how long one may take, and how much is read of its answer. */
  deliveryAttemptsMax: 10,
  deliveryAgeMsMax: 24 * 3_600_000,
  deliveryTimeoutMs: 30_000,
  deliveryAnswerBytesMax: 16 * KIB,
  /** Deliveries of one function that run at a time. */
  deliveriesPerFunctionMax: 8,
  /** Longest time between two looks at the queue when nothing wakes its dispatcher, in milliseconds. */
  queuePollMs: 10_000,
  /** Activations and log lines that may wait to be written, and the memory they may take, in bytes; beyond, the oldest lines are dropped and counted. */
  appendBacklogRecordsMax: 100_000,
  appendBacklogBytesMax: 64 * MIB,

  /** Triggers and topics per namespace. */
  triggersPerNamespaceMax: 20_000,
  topicsPerNamespaceMax: 1_000,
  /** Subscriptions of one topic. */
  topicSubscriptionsMax: 1_000,
  /** Largest filter pattern of a trigger, in bytes, and its depth. */
  patternBytesMax: 16 * KIB,
  patternDepthMax: 32,
  /** Largest batch of events for one invocation: events, bytes, and the longest time for which it fills, in milliseconds. */
  triggerBatchSizeMax: 1_000,
  triggerBatchBytesMax: 1 * MIB,
  triggerBatchWindowMsMax: 300_000,
  /** Events of one trigger that may wait to be accepted, and the memory they may take, in bytes. */
  triggerInFlightMax: 1_000,
  triggerInFlightBytesMax: 16 * MIB,
  /** Longest time for which an event waits for room in the queue before its source is stopped and tried again later, in milliseconds. */
  triggerAcceptMsMax: 60_000,
  /** Wait before a source that failed is tried again: the first and the longest, in milliseconds. */
  triggerBackoffMsMin: 500,
  triggerBackoffMsMax: 60_000,
  /** Time that a source gets to let go when it is told to, in milliseconds. */
  triggerStopMsMax: 10_000,
  /** Time after which a node that does not show itself has lost its triggers to others, in milliseconds. */
  nodeLeaseMs: 15_000,
  /** Longest time until a change of triggers made on one node is known to the others, in milliseconds. */
  triggerPollMs: 2_000,
  /** Slots of a schedule that are made up for after a downtime. */
  catchUpSlotsMax: 1_000,

  /** Engines of one platform, each a process that serves. */
  enginesMax: 64,
  /** Time that an engine's process may take to its start, to any answer, and to hand over what it has when it ends, in milliseconds; then it is killed. */
  engineOpenMsMax: 30_000,
  engineAnswerMsMax: 10_000,
  engineCloseMsMax: 5_000,

  /** Results per page of a listing: default and most. */
  pageSizeDefault: 50,
  pageSizeMax: 1_000,
  /** Time that running invocations get to end when the platform stops, in milliseconds. */
  drainMsMax: 30_000,
} as const;

export type Limits = typeof limits;
