import type { Service } from "../wire/service.ts";
import { routesOf } from "../wire/service.ts";
import type { LambdaFunctions } from "./functions.ts";
import { aliasOperations } from "./operations/aliases.ts";
import { codeSigningOperations } from "./operations/code-signing.ts";
import { type CodeLocation, functionOperations } from "./operations/functions.ts";
import { invokeOperations } from "./operations/invoke.ts";
import { layerOperations } from "./operations/layers.ts";
import { policyOperations } from "./operations/policies.ts";
import { provisionedOperations } from "./operations/provisioned.ts";
import { settingOperations } from "./operations/settings.ts";
import { urlOperations } from "./operations/urls.ts";
import type { Outcomes } from "./outcomes.ts";
import type { ProvisionedConcurrency } from "./provisioned.ts";
import type { Layers } from "./layers.ts";
import { mappingOperations } from "../mappings/operations.ts";
import type { Mappings } from "../mappings/records.ts";
import type { Queues } from "../sqs/queues.ts";

const FUNCTIONS = "/2015-03-31/functions";

const routes = routesOf({
  [`POST ${FUNCTIONS}`]: "CreateFunction",
  [`GET ${FUNCTIONS}`]: "ListFunctions",
  [`GET ${FUNCTIONS}/{FunctionName}`]: "GetFunction",
  [`DELETE ${FUNCTIONS}/{FunctionName}`]: "DeleteFunction",
  [`PUT ${FUNCTIONS}/{FunctionName}/code`]: "UpdateFunctionCode",
  [`GET ${FUNCTIONS}/{FunctionName}/configuration`]: "GetFunctionConfiguration",
  [`PUT ${FUNCTIONS}/{FunctionName}/configuration`]: "UpdateFunctionConfiguration",
  [`POST ${FUNCTIONS}/{FunctionName}/invocations`]: "Invoke",
  "POST /2014-11-13/functions/{FunctionName}/invoke-async": "InvokeAsync",
  "POST /2021-11-15/functions/{FunctionName}/response-streaming-invocations": "InvokeWithResponseStream",
  [`POST ${FUNCTIONS}/{FunctionName}/versions`]: "PublishVersion",
  [`GET ${FUNCTIONS}/{FunctionName}/versions`]: "ListVersionsByFunction",
  [`POST ${FUNCTIONS}/{FunctionName}/aliases`]: "CreateAlias",
  [`GET ${FUNCTIONS}/{FunctionName}/aliases`]: "ListAliases",
  [`GET ${FUNCTIONS}/{FunctionName}/aliases/{Name}`]: "GetAlias",
  [`PUT ${FUNCTIONS}/{FunctionName}/aliases/{Name}`]: "UpdateAlias",
  [`DELETE ${FUNCTIONS}/{FunctionName}/aliases/{Name}`]: "DeleteAlias",
  [`POST ${FUNCTIONS}/{FunctionName}/policy`]: "AddPermission",
  [`GET ${FUNCTIONS}/{FunctionName}/policy`]: "GetPolicy",
  [`DELETE ${FUNCTIONS}/{FunctionName}/policy/{StatementId}`]: "RemovePermission",
  "POST /2015-03-31/event-source-mappings": "CreateEventSourceMapping",
  "GET /2015-03-31/event-source-mappings": "ListEventSourceMappings",
  "GET /2015-03-31/event-source-mappings/{UUID}": "GetEventSourceMapping",
  "PUT /2015-03-31/event-source-mappings/{UUID}": "UpdateEventSourceMapping",
  "DELETE /2015-03-31/event-source-mappings/{UUID}": "DeleteEventSourceMapping",
  "POST /2021-10-31/functions/{FunctionName}/url": "CreateFunctionUrlConfig",
  "PUT /2021-10-31/functions/{FunctionName}/url": "UpdateFunctionUrlConfig",
  "GET /2021-10-31/functions/{FunctionName}/url": "GetFunctionUrlConfig",
  "DELETE /2021-10-31/functions/{FunctionName}/url": "DeleteFunctionUrlConfig",
  "GET /2021-10-31/functions/{FunctionName}/urls": "ListFunctionUrlConfigs",
  "GET /2018-10-31/layers?find=LayerVersion": "GetLayerVersionByArn",
  "GET /2018-10-31/layers": "ListLayers",
  "POST /2018-10-31/layers/{LayerName}/versions": "PublishLayerVersion",
  "GET /2018-10-31/layers/{LayerName}/versions": "ListLayerVersions",
  "GET /2018-10-31/layers/{LayerName}/versions/{VersionNumber}": "GetLayerVersion",
  "DELETE /2018-10-31/layers/{LayerName}/versions/{VersionNumber}": "DeleteLayerVersion",
  "POST /2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy": "AddLayerVersionPermission",
  "GET /2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy": "GetLayerVersionPolicy",
  "DELETE /2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy/{StatementId}": "RemoveLayerVersionPermission",
  "GET /2016-08-19/account-settings": "GetAccountSettings",
  "GET /2017-03-31/tags/{Resource}": "ListTags",
  "POST /2017-03-31/tags/{Resource}": "TagResource",
  "DELETE /2017-03-31/tags/{Resource}": "UntagResource",
  "PUT /2017-10-31/functions/{FunctionName}/concurrency": "PutFunctionConcurrency",
  "GET /2019-09-30/functions/{FunctionName}/concurrency": "GetFunctionConcurrency",
  "DELETE /2017-10-31/functions/{FunctionName}/concurrency": "DeleteFunctionConcurrency",
  "PUT /2019-09-30/functions/{FunctionName}/provisioned-concurrency": "PutProvisionedConcurrencyConfig",
  "GET /2019-09-30/functions/{FunctionName}/provisioned-concurrency?List=ALL": "ListProvisionedConcurrencyConfigs",
  "GET /2019-09-30/functions/{FunctionName}/provisioned-concurrency": "GetProvisionedConcurrencyConfig",
  "DELETE /2019-09-30/functions/{FunctionName}/provisioned-concurrency": "DeleteProvisionedConcurrencyConfig",
  "PUT /2019-09-25/functions/{FunctionName}/event-invoke-config": "PutFunctionEventInvokeConfig",
  "POST /2019-09-25/functions/{FunctionName}/event-invoke-config": "UpdateFunctionEventInvokeConfig",
  "GET /2019-09-25/functions/{FunctionName}/event-invoke-config": "GetFunctionEventInvokeConfig",
  "DELETE /2019-09-25/functions/{FunctionName}/event-invoke-config": "DeleteFunctionEventInvokeConfig",
  "GET /2019-09-25/functions/{FunctionName}/event-invoke-config/list": "ListFunctionEventInvokeConfigs",
  "PUT /2021-07-20/functions/{FunctionName}/runtime-management-config": "PutRuntimeManagementConfig",
  "GET /2021-07-20/functions/{FunctionName}/runtime-management-config": "GetRuntimeManagementConfig",
  "PUT /2024-08-31/functions/{FunctionName}/recursion-config": "PutFunctionRecursionConfig",
  "GET /2024-08-31/functions/{FunctionName}/recursion-config": "GetFunctionRecursionConfig",
  "PUT /2020-06-30/functions/{FunctionName}/code-signing-config": "PutFunctionCodeSigningConfig",
  "GET /2020-06-30/functions/{FunctionName}/code-signing-config": "GetFunctionCodeSigningConfig",
  "DELETE /2020-06-30/functions/{FunctionName}/code-signing-config": "DeleteFunctionCodeSigningConfig",
  "POST /2020-04-22/code-signing-configs": "CreateCodeSigningConfig",
  "GET /2020-04-22/code-signing-configs": "ListCodeSigningConfigs",
  "GET /2020-04-22/code-signing-configs/{CodeSigningConfigArn}": "GetCodeSigningConfig",
  "PUT /2020-04-22/code-signing-configs/{CodeSigningConfigArn}": "UpdateCodeSigningConfig",
  "DELETE /2020-04-22/code-signing-configs/{CodeSigningConfigArn}": "DeleteCodeSigningConfig",
  "GET /2020-04-22/code-signing-configs/{CodeSigningConfigArn}/functions": "ListFunctionsByCodeSigningConfig",
  "PUT /2025-11-30/functions/{FunctionName}/function-scaling-config": "PutFunctionScalingConfig",
  "GET /2025-11-30/functions/{FunctionName}/function-scaling-config": "GetFunctionScalingConfig",
});

export interface LambdaParts {
  readonly functions: LambdaFunctions;
  readonly provisioned: ProvisionedConcurrency;
  readonly outcomes: Outcomes;
  readonly layers: Layers;
  readonly mappings: Mappings;
  readonly queues: Queues;
  readonly locate: CodeLocation;
}

/** Lambda's API, version 2015-03-31 with its additions since. */
export function createLambda(parts: LambdaParts): Service {
  const { functions, provisioned, outcomes, layers, mappings, queues, locate } = parts;
  const operations = [
    ...functionOperations(functions, outcomes, locate),
    ...aliasOperations(functions),
    ...settingOperations(functions, outcomes),
    ...provisionedOperations(functions, provisioned),
    ...codeSigningOperations(functions, functions.platform.parts.store.values),
    ...policyOperations(functions),
    ...urlOperations(functions),
    ...layerOperations(layers, locate),
    ...mappingOperations(mappings, queues, functions),
    ...invokeOperations(functions, outcomes),
  ];
  return {
    name: "lambda",
    protocols: ["rest-json"],
    target: null,
    queryVersion: null,
    xmlNamespace: null,
    operations: new Map(operations.map((each) => [each.name, each])),
    route: routes,
  };
}
