// The Node package: its client over TCP and a unix socket, and services that it protects, which call one another.
//
// Arguments: the folder where the package is installed, both addresses of a server of the demo, and the folder of shop.proto.
'use strict';

const assert = require('node:assert/strict');
const http2 = require('node:http2');
const path = require('node:path');
const { createRequire } = require('node:module');

const [installed, tcp, unix, shop] = process.argv.slice(2);
const load = createRequire(path.join(installed, 'package.json'));
const grpc = load('@grpc/grpc-js');
const loader = load('@grpc/proto-loader');
const { Client, carryRevision, decidedAt, protect } = load('@capstan/client');
const protos = path.join(path.dirname(load.resolve('@capstan/client')), 'proto');

const NGINX = 'acme/platform/images/nginx';
const { status } = grpc;
let answers = 0;

function same(found, expected) {
  assert.deepEqual(found, expected);
  answers += 1;
}

async function codeOf(call) {
  try {
    await call();
  } catch (error) {
    return error.code;
  }
  return undefined;
}

async function theClient() {
  for (const address of [tcp, tcp.replace('http://', ''), unix]) {
    const client = new Client(address, { timeout: 20_000 });
    const properties = { context: { n: 1, b: true, t: 'x' } };
    const found = await client.check('bob', 'repo.list', NGINX, { properties, atLeast: 1 });
    same(found, { allowed: true, reason: 'GRANTED', revision: 1n });
    same((await client.check('nobody', 'repo.list', NGINX)).reason, 'UNKNOWN_IDENTITY');
    same(await codeOf(() => client.check('bob', 'no.such', NGINX)), status.INVALID_ARGUMENT);
    client.close();
  }
  for (const address of ['ftp://127.0.0.1:1', 'http://', 'http://a/b', '']) {
    assert.throws(() => new Client(address), TypeError);
  }
  const nobody = new Client('http://127.0.0.1:1', { timeout: 300 });
  same([status.UNAVAILABLE, status.DEADLINE_EXCEEDED].includes(await codeOf(() => nobody.check('bob', 'repo.list', NGINX))), true);
  await assert.rejects(nobody.check('bob', 'repo.list', NGINX, { properties: { context: { n: [] } } }), TypeError);
}

const { Images } = grpc.loadPackageDefinition(
  loader.loadSync('shop.proto', { includeDirs: [shop, protos], keepCase: true }),
).shop.v1;
const identify = (metadata) => {
  const [identity] = metadata.get('x-identity');
  return identity ? { identity } : null;
};
const guard = (client, services = ['shop.v1.Images'], more = {}) =>
  protect(client, { protos: 'shop.proto', includeDirs: [shop], services, identify, ...more });

async function serve(interceptor, behind) {
  const seen = [];
  const server = new grpc.Server({ interceptors: [interceptor] });
  server.addService(Images.service, {
    Get: (call, answer) => {
      seen.push([decidedAt(), call.metadata.get('capstan-revision')[0]]);
      if (!behind) return answer(null, { text: call.request.repo });
      const metadata = new grpc.Metadata();
      metadata.set('x-identity', 'bob');
      return behind.Get(call.request, metadata, answer);
    },
    Move: (call, answer) => answer(null, { text: call.request.to.repo }),
    Status: (call, answer) => answer(null, { text: 'status' }),
    Upload: (call, answer) => {
      seen.push(decidedAt());
      const all = [];
      call.on('data', (request) => all.push(request.repo));
      call.on('end', () => answer(null, { text: [...all, decidedAt()].join(',') }));
    },
    Version: (call, answer) => answer(null, { text: String(decidedAt()) }),
  });
  const port = await new Promise((resolve, reject) => {
    const bound = (error, at) => (error ? reject(error) : resolve(at));
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), bound);
  });
  const client = (options) => new Images(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), options);
  return { client, port, seen, server };
}

const call = (client, method, request, headers = {}, deadline = 20_000) => {
  const metadata = new grpc.Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return new Promise((resolve, reject) => {
    const answered = (error, answer) => (error ? reject(error) : resolve(answer.text));
    const sent = client[method](...(Array.isArray(request) ? [] : [request]), metadata, { deadline: Date.now() + deadline }, answered);
    if (Array.isArray(request)) {
      for (const one of request) sent.write(one);
      sent.end();
    }
  });
};

async function theInterceptor() {
  const capstan = new Client(tcp, { timeout: 20_000 });
  const far = await serve(guard(capstan));
  const near = await serve(guard(capstan), far.client({ interceptors: [carryRevision] }));
  const client = near.client();
  const bob = { 'x-identity': 'bob' };
  same(await call(client, 'Get', { repo: NGINX }, bob), NGINX);
  same([near.seen, far.seen], [[[1n, undefined]], [[1n, '1']]]);
  for (const [identity, repo, expected] of [
    ['nobody', NGINX, status.PERMISSION_DENIED],
    ['bob', 'other', status.PERMISSION_DENIED],
    ['', NGINX, status.UNAUTHENTICATED],
    ['bob', '', status.INVALID_ARGUMENT],
    ['bob', 'a b', status.INVALID_ARGUMENT],
    ['b b', NGINX, status.INTERNAL],
  ]) {
    same(await codeOf(() => call(client, 'Get', { repo }, { 'x-identity': identity })), expected);
  }
  const asking = (revision) => codeOf(() => call(client, 'Get', { repo: NGINX }, { ...bob, 'capstan-revision': revision }));
  same(await asking('x'), status.INVALID_ARGUMENT);
  same([status.UNAVAILABLE, status.DEADLINE_EXCEEDED].includes(await asking('99')), true);
  const alice = { 'x-identity': 'alice' };
  const to = { to: { repo: NGINX } };
  same(await call(client, 'Move', to, alice), NGINX);
  same(await codeOf(() => call(client, 'Move', to, bob)), status.PERMISSION_DENIED);
  same(await codeOf(() => call(client, 'Move', {}, alice)), status.INVALID_ARGUMENT);
  same(await call(client, 'Status', {}, alice), 'status');
  const many = [{ repo: 'a' }, { repo: 'b' }];
  same(await call(client, 'Upload', many, alice), 'a,b,1');
  same(await call(client, 'Upload', [], alice), '1');
  for (const messages of [many, []]) {
    same(await codeOf(() => call(client, 'Upload', messages, bob)), status.PERMISSION_DENIED);
  }
  same(await call(client, 'Version', {}), 'undefined');
  // No method has started but those that were allowed.
  same(near.seen.slice(1), [1n, 1n]);
  // A service with a method that says nothing, or what cannot be kept to, does not start.
  for (const name of ['Unannotated', 'Streams', 'NoField', 'NoText', 'Listed', 'Nowhere', 'Nothing', 'Both']) {
    assert.throws(() => guard(capstan, [`shop.v1.${name}`]), TypeError, name);
    answers += 1;
  }
  // Without a rule nothing is let through, and an open service is.
  const other = await serve(guard(capstan, []));
  for (const [method, request] of [['Get', { repo: NGINX }], ['Upload', []]]) {
    same(await codeOf(() => call(other.client(), method, request, alice)), status.UNIMPLEMENTED);
  }
  same(other.seen.length, 0);
  const open = await serve(guard(capstan, [], { openServices: ['shop.v1.Images'] }));
  same(await call(open.client(), 'Get', { repo: 'any' }), 'any');
  // Without a deadline of the caller, the client's own timeout counts.
  const timeouts = [];
  const check = async (identity, capability, resource, { timeout }) => {
    timeouts.push(timeout);
    return { allowed: true, reason: 'GRANTED', revision: 1n };
  };
  const asked = await serve(guard({ check }));
  for (const deadline of [Infinity, 100_000]) await call(asked.client(), 'Get', { repo: NGINX }, bob, deadline);
  same(timeouts, [undefined, 10_000]);
  // Without Capstan every call is refused within its deadline.
  const alone = await serve(guard(new Client('http://127.0.0.1:1')));
  const refused = await codeOf(() => call(alone.client(), 'Get', { repo: NGINX }, bob, 500));
  same([status.UNAVAILABLE, status.DEADLINE_EXCEEDED].includes(refused), true);
  same(alone.seen.length, 0);
}

/** A call whose end comes after its decision has the revision, too, and one that ends without a request is refused. */
async function theEndOfACall() {
  const capstan = new Client(tcp, { timeout: 20_000 });
  let hasDecided;
  const whenDecided = new Promise((resolve) => (hasDecided = resolve));
  const check = async (...asked) => {
    const decision = await capstan.check(...asked);
    setImmediate(hasDecided);
    return decision;
  };
  const { port, seen } = await serve(guard({ check }));
  const session = http2.connect(`http://127.0.0.1:${port}`);
  const start = () => {
    const headers = { ':method': 'POST', ':path': '/shop.v1.Images/Get', 'content-type': 'application/grpc', te: 'trailers' };
    const stream = session.request({ ...headers, 'x-identity': 'bob' }, { endStream: false });
    const ended = new Promise((resolve, reject) => {
      let code;
      const status = (all) => (code ??= all['grpc-status']);
      stream.on('response', status).on('trailers', status).on('error', reject).on('end', () => resolve(Number(code))).resume();
    });
    return { stream, ended };
  };
  const whole = start();
  whole.stream.write(Buffer.concat([Buffer.from([0, 0, 0, 0, NGINX.length + 2, 10, NGINX.length]), Buffer.from(NGINX)]));
  await whenDecided;
  whole.stream.end();
  same(await whole.ended, status.OK);
  same(seen, [[1n, undefined]]);
  const empty = start();
  empty.stream.end();
  same(await empty.ended, status.INVALID_ARGUMENT);
  same(seen.length, 1);
  session.close();
}

theClient()
  .then(theInterceptor)
  .then(theEndOfACall)
  .then(() => {
    console.log(`${answers} answers`);
    process.exit(0);
  })
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
