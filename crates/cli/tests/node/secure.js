// The Node.js client with TLS, a certificate and a token.
//
// Arguments: the folder of what npm installed, the https address of a server that names its callers, and a folder with ca.pem,
// ci.pem, ci.key, and token, which proves the identity acme/all; then whether the server wants
// certificates of its clients, and so takes no tokens.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');

const [installed, address, folder, certificates] = process.argv.slice(2);
const { Client } = require(path.join(installed, 'node_modules', '@capstan', 'client'));
const grpc = require(path.join(installed, 'node_modules', '@grpc', 'grpc-js'));
const NGINX = 'acme/images/nginx';
const [ca, certificate, key, tokenFile] = ['ca.pem', 'ci.pem', 'ci.key', 'token'].map((name) => path.join(folder, name));
let answers = 0;

function same(found, expected) {
  assert.deepStrictEqual(found, expected);
  answers += 1;
}

/** Whether it is allowed, or why there is no decision. */
async function asked(options, { resource = NGINX, of = address } = {}) {
  let client;
  try {
    client = new Client(of, { timeout: 20_000, ...options });
    return (await client.check('acme/reader', 'repo.list', resource)).allowed;
  } catch (error) {
    return error instanceof TypeError ? 'TypeError' : error.code;
  } finally {
    client?.close();
  }
}

(async () => {
  const ofCertificate = { ca, certificate, key };
  const { UNAUTHENTICATED, PERMISSION_DENIED, UNAVAILABLE } = grpc.status;
  if (certificates === 'true') {
    const other = { ca, certificate: path.join(folder, 'other.pem'), key: path.join(folder, 'other.key') };
    same(await asked(ofCertificate), true);
    same(await asked(ofCertificate, { resource: 'acme/other' }), PERMISSION_DENIED);
    same(await asked(other), UNAUTHENTICATED);
    same(await asked({ ...ofCertificate, tokenFile }), UNAUTHENTICATED);
    same(await asked({ ca, tokenFile, timeout: 3_000 }), UNAVAILABLE);
    console.log(`${answers} answers`);
    return;
  }
  same(await asked({ ca, tokenFile }), true);
  same(await asked({ ca, tokenFile, identity: 'acme/all' }), true);
  same(await asked({ ca, tokenFile, identity: 'acme/reader' }), UNAUTHENTICATED);
  same(await asked({ ca }), UNAUTHENTICATED);
  same(await asked({ tokenFile, timeout: 3_000 }), UNAVAILABLE);
  same(await asked({ ca, tokenFile: path.join(folder, 'absent') }), 'ENOENT');
  same(await asked({ ca, tokenFile: ca }), 'TypeError');
  same(await asked({ ca, certificate }), 'TypeError');
  same(await asked({ ca, identity: 'acme/all' }), 'TypeError');
  same(await asked({ ca }, { of: 'http://127.0.0.1:1' }), 'TypeError');
  same(await asked({ tokenFile }, { of: 'http://capstan.example:1' }), 'TypeError');
  // It is renewed in place.
  const client = new Client(address, { timeout: 20_000, ca, tokenFile });
  const secret = fs.readFileSync(tokenFile, 'utf8');
  const check = () => client.check('acme/reader', 'repo.list', NGINX);
  same((await check()).allowed, true);
  fs.writeFileSync(tokenFile, 'another');
  same(await check().catch((error) => error.code), UNAUTHENTICATED);
  fs.writeFileSync(tokenFile, secret);
  same((await check()).allowed, true);
  client.close();
  console.log(`${answers} answers`);
})();
