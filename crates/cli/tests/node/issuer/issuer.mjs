// An issuer of OpenID Connect that others have written: oidc-provider, over TLS.
//
// Arguments: the folder with node_modules, the port (0 for any), the certificate, its key, and a file with private keys as a
// JSON Web Key Set, which is made if it is not there. Prints `issuer URL` when it listens.
//
// People log in by its own pages for development: with any name and password. `capstan` and `brief` are public clients of the
// command line; ID tokens of `brief` end after 20 seconds, so that each command refreshes them. `secretive` has a secret.
//
// Each line on standard input, `CLIENT ALGORITHM AUDIENCE`, asks its token endpoint, and prints `token JWT`, the
// access token. The line `reads` prints `reads N`: how often its keys were read. Other lines are notices.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:https';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [modules, port, cert, key, keys] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(`${modules}/node_modules/oidc-provider/lib/index.js`));

if (!existsSync(keys)) {
  const kinds = [['rsa', { modulusLength: 2048 }], ['ec', { namedCurve: 'P-256' }], ['ed25519', {}]];
  const made = kinds.map(([kind, options]) => ({
    ...generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' }),
    kid: randomUUID(),
    use: 'sig',
  }));
  writeFileSync(keys, JSON.stringify({ keys: made }), { mode: 0o600 });
}

const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) });
await new Promise((done) => server.listen(Number(port), '127.0.0.1', done));
const issuer = `https://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  jwks: JSON.parse(readFileSync(keys, 'utf8')),
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'Ed25519'] },
  clients: [
    ...['builder', 'ann'].map((id) => ({
      client_id: id,
      client_secret: `${id}-secret`,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    ...['capstan', 'brief', 'secretive'].map((id) => ({
      client_id: id,
      ...(id === 'secretive' ? { client_secret: 's%cret:' } : { token_endpoint_auth_method: 'none' }),
      application_type: 'native',
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
    })),
  ],
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  findAccount: (_, accountId) => ({
    accountId,
    claims: () => ({ sub: accountId, email: `${accountId}@people.example`, email_verified: true }),
  }),
  rotateRefreshToken: true,
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      // The resource is `urn:ALGORITHM:AUDIENCE`.
      getResourceServerInfo: (_, resource) => {
        const [, alg, ...audience] = resource.split(':');
        const jwt = { sign: { alg } };
        return { scope: 'api', audience: audience.join(':'), accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt };
      },
    },
  },
  ttl: {
    ClientCredentials: 300,
    IdToken: (_, __, client) => (client.clientId === 'brief' ? 20 : 600),
  },
  extraTokenClaims: () => ({ groups: ['devs'] }),
});
let reads = 0;
server.on('request', ({ url }) => { if (url === '/jwks') reads += 1; });
server.on('request', provider.callback());
console.log(`issuer ${issuer}`);

const token = (client, algorithm, audience) => new Promise((done, fail) => {
  const body = new URLSearchParams({
    grant_type: 'client_credentials', scope: 'api', resource: `urn:${algorithm}:${audience}`,
  });
  const options = {
    method: 'POST',
    auth: `${client}:${client}-secret`,
    ca: readFileSync(cert),
    checkServerIdentity: () => undefined,
    rejectUnauthorized: false, // It asks itself.
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
  };
  const sent = request(`${issuer}/token`, options, async (answer) => {
    let text = '';
    for await (const part of answer) text += part;
    const found = JSON.parse(text);
    if (found.access_token) done(found.access_token);
    else fail(new Error(text));
  });
  sent.on('error', fail);
  sent.end(String(body));
});

for await (const line of createInterface({ input: process.stdin })) {
  console.log(line === 'reads' ? `reads ${reads}` : `token ${await token(...line.split(' '))}`);
}
process.exit(0);
