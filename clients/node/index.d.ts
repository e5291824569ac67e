import type { Interceptor, Metadata, ServerInterceptor } from '@grpc/grpc-js';

/** A decision. It must be enforced. */
export interface Decision {
  /** Whether the identity has the capability. */
  allowed: boolean;
  /** Why, such as `GRANTED` or `NO_BINDING`. */
  reason: string;
  /** The revision of the policy that decided. */
  revision: bigint;
}

type Property = string | number | boolean;

export interface CheckOptions {
  properties?: Partial<Record<'subject' | 'resource' | 'action' | 'context', Record<string, Property>>>;
  /** The lowest revision that may decide. */
  atLeast?: bigint | number | string;
  /** Milliseconds. */
  timeout?: number;
}

export interface ClientOptions {
  /** Milliseconds of a call that does not say otherwise. */
  timeout?: number;
  /** A file in PEM with the authorities that are trusted instead of those of the system. With `https` only, as the next two. */
  ca?: string;
  /** Files in PEM with what the client proves itself by: its certificate, and its private key. */
  certificate?: string;
  key?: string;
  /** A file with a token or a secret that proves the caller. It is read for each call, so that it can be renewed in place. */
  tokenFile?: string;
  /** The identity that the token proves, which one below a group needs. */
  identity?: string;
}

/** Asks one Capstan: `http://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT` or `unix:PATH`. */
export class Client {
  /** Throws if the options do not fit the address, or others could read the token on its way. */
  constructor(address: string, options?: ClientOptions);
  /** Whether an identity has a capability at a resource. Rejects if there is no decision in time. */
  check(identity: string, capability: string, resource: string, options?: CheckOptions): Promise<Decision>;
  close(): void;
}

/** Who calls, and whether the revision that its calls ask for counts. */
export interface Caller {
  identity: string;
  mayAskRevision?: boolean;
}

export interface ProtectOptions {
  /** The file of the schema, which imports `capstan/v1/options.proto`, as in an import. */
  protos: string;
  /** Folders of schemas. That of `capstan/v1/options.proto` is known. */
  includeDirs?: string[];
  /** Full names of the services. */
  services: string[];
  /** Says who calls. What it reads must be proved by then. */
  identify: (metadata: Metadata) => Caller | null | undefined;
  /** Services that need nothing, such as health. */
  openServices?: string[];
}

/** Asks Capstan before a call reaches its method. Throws if a method does not say what it needs. */
export function protect(client: Client, options: ProtectOptions): ServerInterceptor;
/** Sends the revision that decided the call of a service with the calls that it makes. */
export const carryRevision: Interceptor;
/** The revision that decided the call that is answered here. */
export function decidedAt(): bigint | undefined;
