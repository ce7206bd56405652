import type { Service } from "../wire/service.ts";
import { fromForm, toXml } from "./forms.ts";
import { messageOperations } from "./operations/messages.ts";
import { queueOperations } from "./operations/queues.ts";
import { moveOperations } from "./operations/moves.ts";
import type { Queues } from "./queues.ts";

/** Names of errors in the query protocol, where they differ. */
const QUERY_ERRORS: Readonly<Record<string, string>> = Object.fromEntries([
  ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"],
  ["QueueNameExists", "QueueAlreadyExists"],
  ["QueueDeletedRecently", "AWS.SimpleQueueService.QueueDeletedRecently"],
  ["PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress"],
  ["BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"],
  ["EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest"],
  ["InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId"],
  ["TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"],
  ["BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong"],
  ["MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight"],
  ["UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation"],
  ["ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid"],
  ["ValidationException", "InvalidParameterValue"],
  ["AccessDeniedException", "AccessDenied"],
]);

/** What requests for queues are called on the wire, for who asks a server for messages. */
export const queueWording = { target: "AmazonSQS", contentType: "application/x-amz-json-1.0" } as const;

/** The Simple Queue Service: standard and FIFO queues, on disk before a send is answered. */
export function createSqs(queues: Queues): Service {
  const operations = [...queueOperations(queues), ...messageOperations(queues), ...moveOperations(queues)];
  return {
    name: "sqs",
    protocols: ["json", "query"],
    target: queueWording.target,
    queryVersion: "2012-11-05",
    xmlNamespace: "http://queue.amazonaws.com/doc/2012-11-05/",
    operations: new Map(operations.map((each) => [each.name, each])),
    route: () => null,
    queryErrors: QUERY_ERRORS,
    fromForm,
    toXml,
  };
}
