import { type Operation, type Service } from "../wire/service.ts";
import type { IamAccess } from "./access.ts";
import type { IamDirectory } from "./directory.ts";
import { bearerOperations } from "./operations/bearers.ts";
import { keyOperations } from "./operations/keys.ts";
import { policyOperations } from "./operations/policies.ts";
import { roleOperations } from "./operations/roles.ts";
import { userOperations } from "./operations/users.ts";

export interface IamParts {
  readonly directory: IamDirectory;
  readonly access: IamAccess;
}

/** Identity and Access Management, as far as it decides who may do what here: users, access keys, roles, policies. */
export function createIam(parts: IamParts): Service {
  const operations: readonly Operation[] = [
    ...userOperations(parts),
    ...keyOperations(parts),
    ...roleOperations(parts),
    ...policyOperations(parts),
    ...bearerOperations(parts),
  ];
  return {
    name: "iam",
    protocols: ["query"],
    target: null,
    queryVersion: "2010-05-08",
    xmlNamespace: "https://iam.amazonaws.com/doc/2010-05-08/",
    operations: new Map(operations.map((each) => [each.name, each])),
    route: () => null,
    queryErrors: { ValidationException: "ValidationError", AccessDeniedException: "AccessDenied" },
  };
}
