import type { ConnectionOptions } from "node:tls";
import { z } from "zod";
import { secretReference, type SourceHost } from "../trigger.ts";

const PEM_LENGTH_MAX = 64 * 1024;

/** How a connection is encrypted, beyond that the address says so; certificates are always checked. */
export const tlsSettings = z
  .strictObject({
    ca: z
      .string()
      .max(PEM_LENGTH_MAX)
      .includes("-----BEGIN CERTIFICATE-----", "must be a certificate in PEM form")
      .optional()
      .meta({ description: "Certificates (PEM) of who may vouch for the server, instead of the public ones." }),
    serverName: z.string().max(253).optional().meta({ description: "The name in the server's certificate." }),
    certificate: secretReference("The client's certificate (PEM)").optional(),
    key: secretReference("The client's private key (PEM)").optional(),
  })
  .refine(({ certificate, key }) => (certificate === undefined) === (key === undefined), {
    error: "needs both certificate and key, or none",
  })
  .meta({ description: "How the connection is encrypted: whom to trust, and the client's own certificate." });

export type TlsSettings = z.output<typeof tlsSettings>;

/** For `node:tls` and everything built on it. */
export function tlsOptions(tls: TlsSettings | undefined, host: Pick<SourceHost, "secret">): ConnectionOptions {
  return {
    rejectUnauthorized: true,
    ...(tls?.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls?.serverName === undefined ? {} : { servername: tls.serverName }),
    ...(tls?.certificate === undefined ? {} : { cert: host.secret(tls.certificate) }),
    ...(tls?.key === undefined ? {} : { key: host.secret(tls.key) }),
  };
}
