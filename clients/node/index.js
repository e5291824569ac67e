// A client of Capstan, and interceptors for services that it protects.
//
// An error is never an allow: what has no decision is a rejected promise, and a call without one is refused.
'use strict';

const { AsyncLocalStorage } = require('node:async_hooks');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

// In the package, or beside it in the repository.
const PROTOS = [path.join(__dirname, 'proto'), path.join(__dirname, '..', '..', 'proto')].find((place) =>
  fs.existsSync(path.join(place, 'capstan', 'v1', 'decision.proto')),
);
const REVISION_KEY = 'capstan-revision';
const OPTION = '(capstan.v1.authorization)';
/** Milliseconds that a call of a client has, unless it says otherwise. */
const TIMEOUT = 1000;
/** Milliseconds to decide a call whose caller has a later deadline. Without one, the client's own timeout counts. */
const TIME_MAX = 10_000;

const decision = grpc.loadPackageDefinition(
  loader.loadSync('capstan/v1/decision.proto', {
    includeDirs: [PROTOS],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  }),
);

/** The target of gRPC for an address, and whether it has TLS. A scheme that is not spoken is never left out. */
function targetOf(address) {
  if (address.startsWith('unix:')) return { target: address, isTls: false };
  const [, scheme, rest] = /^(?:([^/]*):\/\/)?(.*)$/s.exec(address);
  if (scheme !== undefined && !['http', 'https'].includes(scheme)) {
    throw new TypeError(`${address}: only http://, https:// and unix: are spoken`);
  }
  const target = rest.replace(/\/$/, '');
  if (target === '' || target.includes('/')) {
    throw new TypeError(`${address}: expected http://HOST:PORT, https://HOST:PORT or unix:PATH`);
  }
  return { target, isTls: scheme === 'https' };
}

function isOfThisMachine(target) {
  if (target.startsWith('unix:')) return true;
  const host = target.replace(/:[^:]*$/, '');
  return host.toLowerCase() === 'localhost' || host === '[::1]' || (net.isIPv4(host) && host.startsWith('127.'));
}

function value(of) {
  switch (typeof of) {
    case 'boolean':
      return { boolValue: of };
    case 'number':
      return { numberValue: of };
    case 'string':
      return { stringValue: of };
    default:
      throw new TypeError(`a property is a text, a number or a boolean, not ${typeof of}`);
  }
}

class Client {
  #stub;
  #timeout;
  #tokenFile;
  #identity;

  constructor(address, { timeout = TIMEOUT, ca, certificate, key, tokenFile, identity } = {}) {
    this.#timeout = timeout;
    this.#tokenFile = tokenFile;
    this.#identity = identity;
    const { target, isTls } = targetOf(address);
    if (!isTls && [ca, certificate, key].some((file) => file !== undefined)) {
      throw new TypeError(`${address}: ca, certificate and key are for https://HOST:PORT`);
    }
    if ((certificate === undefined) !== (key === undefined)) throw new TypeError('certificate and key belong together');
    if (tokenFile !== undefined && !isTls && !isOfThisMachine(target)) {
      throw new TypeError(`${address} is asked in plain text, and others would see the token: ask https://${target}`);
    }
    if (identity !== undefined && tokenFile === undefined) throw new TypeError('identity is what tokenFile proves');
    const read = (file) => (file === undefined ? null : fs.readFileSync(file));
    const credentials = isTls
      ? grpc.credentials.createSsl(read(ca), read(key), read(certificate))
      : grpc.credentials.createInsecure();
    this.#stub = new decision.capstan.v1.DecisionService(target, credentials, {
      // Names of proxies are for other servers.
      'grpc.enable_http_proxy': 0,
    });
  }

  /** What proves who asks. It is read for each call, so that it can be renewed in place. */
  async #metadata() {
    const metadata = new grpc.Metadata();
    if (this.#tokenFile === undefined) return metadata;
    const token = (await fs.promises.readFile(this.#tokenFile, 'latin1')).trim();
    if (!/^[!-~]+$/.test(token)) throw new TypeError(`${this.#tokenFile}: expected one token: a line without spaces`);
    metadata.set('authorization', `Bearer ${token}`);
    if (this.#identity !== undefined) metadata.set('x-capstan-caller', this.#identity);
    return metadata;
  }

  /** Whether an identity has a capability at a resource. Rejects if there is no decision in time. */
  async check(identity, capability, resource, { properties, atLeast, timeout = this.#timeout } = {}) {
    const request = { identity, capability, resource };
    if (properties) {
      const values = (all) => Object.fromEntries(Object.entries(all).map(([name, one]) => [name, value(one)]));
      request.properties = Object.fromEntries(Object.entries(properties).map(([category, all]) => [category, values(all)]));
    }
    if (atLeast !== undefined) request.consistency = { at_least: String(atLeast) };
    const metadata = await this.#metadata();
    const response = await new Promise((resolve, reject) => {
      this.#stub.Check(request, metadata, { deadline: Date.now() + timeout }, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
    const reason = response.reason.replace(/^REASON_/, '');
    // Allowed and granted are one: an answer of which only one is so is none.
    return { allowed: response.allowed && reason === 'GRANTED', reason, revision: BigInt(response.revision) };
  }

  close() {
    this.#stub.close();
  }
}

// === Services ===

const deciding = new AsyncLocalStorage();

/** The revision that decided the call that is answered here; undefined outside of one, and for an open method. */
function decidedAt() {
  return deciding.getStore();
}

/** What a method needs; null if it is open. */
function ruleOf(service, method) {
  const name = `${service.fullName.slice(1)}.${method.name}`;
  const option = method.parsedOptions?.map((one) => one[OPTION]).find((one) => one !== undefined);
  if (option === undefined) throw new TypeError(`${name}: no option ${OPTION}`);
  const { capability, resource, at, open } = option;
  if (open !== undefined) {
    if (open !== true || capability) throw new TypeError(`${name}: open is true, and stands alone`);
    return null;
  }
  if (!capability || (resource === undefined) === (at === undefined)) {
    throw new TypeError(`${name}: a capability, and \`resource\` or \`at\`, or open`);
  }
  if (at !== undefined) return { capability, at };
  if (method.requestStream) {
    throw new TypeError(`${name}: takes a stream of requests, which may name other resources: use \`at\``);
  }
  let message = method.resolve().resolvedRequestType;
  const fields = resource.split('.').map((step, depth, steps) => {
    const field = message?.fields?.[step];
    const request = method.resolvedRequestType.fullName.slice(1);
    if (field === undefined || field.repeated || field.map) {
      throw new TypeError(`${name}: ${request} has no single field \`${resource}\``);
    }
    field.resolve();
    if (depth + 1 === steps.length && field.type !== 'string') throw new TypeError(`${name}: \`${resource}\` is no text`);
    message = field.resolvedType;
    return step;
  });
  return { capability, fields };
}

/** The rules of services, by the path of a call. */
function rulesOf(protos, includeDirs, services) {
  const root = new protobuf.Root();
  const places = [...includeDirs, PROTOS];
  const resolve = root.resolvePath.bind(root);
  root.resolvePath = (origin, target) =>
    places.map((place) => path.join(place, target)).find((file) => fs.existsSync(file)) ?? resolve(origin, target);
  root.loadSync(protos, { keepCase: true });
  const rules = new Map();
  for (const name of services) {
    const service = root.lookupService(name);
    for (const method of service.methodsArray) rules.set(`/${name}/${method.name}`, ruleOf(service, method));
  }
  return rules;
}

/** The field of a message, whatever the case of its names. */
function fieldOf(message, name) {
  const camel = name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  return message?.[name] ?? message?.[camel];
}

/**
 * An interceptor of servers that asks Capstan before a call reaches its method. Throws if a method does not say what it needs:
 * a service should not start then.
 */
function protect(client, { protos, includeDirs = [], services, identify, openServices = [] }) {
  const rules = rulesOf(protos, includeDirs, services);
  const open = new Set(openServices);

  async function ask(rule, metadata, message, deadline) {
    if (rule === undefined) throw { code: grpc.status.UNIMPLEMENTED, details: 'no rule lets this method be called' };
    const caller = identify(metadata);
    if (!caller) throw { code: grpc.status.UNAUTHENTICATED, details: 'nobody that is known calls' };
    const resource = rule.fields ? rule.fields.reduce(fieldOf, message) : rule.at;
    if (typeof resource !== 'string' || resource === '') {
      throw { code: grpc.status.INVALID_ARGUMENT, details: `${rule.fields?.join('.') ?? 'at'}: missing` };
    }
    const [asked] = metadata.get(REVISION_KEY);
    if (asked !== undefined && !/^[0-9]{1,20}$/.test(asked)) {
      throw { code: grpc.status.INVALID_ARGUMENT, details: `${REVISION_KEY}: expected the number of a revision` };
    }
    const atLeast = caller.mayAskRevision === false ? undefined : asked;
    const left = deadline === undefined ? undefined : Math.min(deadline - Date.now(), TIME_MAX);
    let found;
    try {
      found = await client.check(caller.identity, rule.capability, resource, { atLeast, timeout: left });
    } catch (error) {
      throw withoutDecision(error);
    }
    if (!found.allowed) {
      const details = `${rule.capability} is required at ${resource}: ${found.reason}`;
      throw { code: grpc.status.PERMISSION_DENIED, details };
    }
    return found.revision;
  }

  return (method, call) => {
    const isOpen = open.has(method.path.split('/')[1]) || rules.get(method.path) === null;
    if (isOpen) return new grpc.ServerInterceptingCall(call);
    const rule = rules.get(method.path);
    let metadata;
    let decided;
    // All of a call waits for one decision, and runs with its revision.
    const decide = (message, next) => {
      if (decided === undefined) {
        decided = ask(rule, metadata, message, deadlineOf(call));
        decided.catch(({ code, details }) => {
          const isStatus = typeof code === 'number';
          call.sendStatus(isStatus ? { code, details } : { code: grpc.status.UNAVAILABLE, details: 'not decided' });
        });
      }
      decided.then(
        (revision) => deciding.run(revision, next),
        () => {},
      );
    };
    const listener = new grpc.ServerListenerBuilder()
      .withOnReceiveMetadata((received, next) => {
        metadata = received;
        // The method of a stream starts with the metadata. Only a request has fields to wait for.
        if (rule?.fields) next(received);
        else decide(undefined, () => next(received));
      })
      .withOnReceiveMessage((message, next) => decide(message, () => next(message)))
      .withOnReceiveHalfClose((next) => decide(undefined, next))
      .build();
    return new grpc.ServerInterceptingCall(call, new grpc.ResponderBuilder().withStart((next) => next(listener)).build());
  };
}

function deadlineOf(call) {
  const deadline = call.getDeadline();
  const time = deadline instanceof Date ? deadline.getTime() : Number(deadline);
  return Number.isFinite(time) ? time : undefined;
}

function withoutDecision({ code, details }) {
  const text = `not decided: ${details}`;
  if (code === grpc.status.INVALID_ARGUMENT) {
    // The resource is the caller's. An identity or a capability that cannot be asked about is the service's own.
    const isCallers = (details ?? '').startsWith('resource');
    return { code: isCallers ? code : grpc.status.INTERNAL, details: text };
  }
  if (code === grpc.status.DEADLINE_EXCEEDED) return { code, details: text };
  return { code: grpc.status.UNAVAILABLE, details: text };
}

/** An interceptor of clients: sends the revision that decided the call of a service with the calls that it makes. */
function carryRevision(options, nextCall) {
  return new grpc.InterceptingCall(nextCall(options), {
    start(metadata, listener, next) {
      const revision = decidedAt();
      if (revision !== undefined) metadata.set(REVISION_KEY, String(revision));
      next(metadata, listener);
    },
  });
}

module.exports = { Client, carryRevision, decidedAt, protect };
