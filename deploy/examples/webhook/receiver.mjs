// Receives Capstan's events: verifies each, prints it as one line of JSON, and drops repetitions. See README.md.

import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { parseArgs } from "node:util";

import { HTTP } from "cloudevents";
import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const BODY_BYTES_MAX = 8 * 1024 * 1024;
const IDS_MAX = 100_000;

const { values: options } = parseArgs({
  options: {
    issuer: { type: "string" }, // Capstan's --public-url: https://iam.example.com
    audience: { type: "string" }, // origin of the sink: https://hooks.example.com
    group: { type: "string" }, // group of the subscription: acme
    cert: { type: "string" }, // certificate of this server, PEM
    key: { type: "string" }, // its private key, PEM
    port: { type: "string", default: "8443" },
  },
});
for (const name of ["issuer", "audience", "group", "cert", "key"]) {
  if (!options[name]) {
    console.error(`--${name} is missing`);
    process.exit(2);
  }
}

const origin = new URL(options.issuer).hostname;
const keys = createRemoteJWKSet(new URL(options.issuer + "/.well-known/jwks.json")); // caches the keys
// Keep the ids in your database, in one transaction with what you do with the events.
const seen = new Set();

class Refused extends Error {
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

/** The body of a request, up to a limit. */
async function bodyOf(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) throw new Refused(413, "too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Verifies the token: signature, type, issuer, audience, subject, times, and the digest of the body. */
async function verify(authorization, body) {
  const [scheme, token] = (authorization ?? "").split(" ");
  if (scheme.toLowerCase() !== "bearer" || !token) throw new Refused(401, "no bearer token");
  let claims;
  try {
    ({ payload: claims } = await jwtVerify(token, keys, {
      algorithms: ["EdDSA", "ES256"],
      typ: "capstan-webhook+jwt",
      issuer: options.issuer,
      audience: options.audience,
      subject: `webhook:${options.group}`,
      requiredClaims: ["iat", "exp", "jti"],
      clockTolerance: 60,
    }));
  } catch (error) {
    // Anything that is not about the token is about fetching the keys, and Capstan tries again later.
    const isToken =
      error instanceof errors.JOSEError &&
      !(error instanceof errors.JWKSTimeout) &&
      error.code !== "ERR_JOSE_GENERIC";
    throw new Refused(isToken ? 401 : 503, `token: ${error.message}`);
  }
  const digest = Buffer.from("sha256:" + createHash("sha256").update(body).digest("hex"));
  const claimed = Buffer.from(String(claims.webhook?.digest));
  if (claimed.length !== digest.length || !timingSafeEqual(claimed, digest)) {
    throw new Refused(401, "the token is for another body");
  }
  return claims;
}

/** Verifies a delivery. Returns the event, or undefined if it was here before. */
async function receive(request) {
  const body = await bodyOf(request);
  const claims = await verify(request.headers.authorization, body);
  let event;
  try {
    event = HTTP.toEvent({ headers: request.headers, body: body.toString() });
    event.validate();
  } catch (error) {
    throw new Refused(400, `no CloudEvent: ${error.message}`);
  }
  // The token is for one event: without this, the token of one proves another with an equal body.
  if (event.id !== claims.jti || event.source !== options.issuer) {
    throw new Refused(401, "the token is for another event");
  }
  if (seen.has(event.id)) return undefined;
  seen.add(event.id);
  if (seen.size > IDS_MAX) seen.delete(seen.values().next().value);
  return event;
}

const tls = { cert: readFileSync(options.cert), key: readFileSync(options.key) };
const server = createServer(tls, async (request, response) => {
  if (request.method === "OPTIONS") {
    // Consents to deliveries from Capstan, and from nobody else.
    response.setHeader("Allow", "OPTIONS, POST");
    if (request.headers["webhook-request-origin"]?.toLowerCase() === origin) {
      response.setHeader("WebHook-Allowed-Origin", origin);
      response.setHeader("WebHook-Allowed-Rate", "*");
    }
    response.writeHead(204).end();
    return;
  }
  if (request.method !== "POST") {
    response.writeHead(405, { Allow: "OPTIONS, POST", Connection: "close" }).end();
    return;
  }
  try {
    const event = await receive(request);
    if (event) {
      const { id, type, subject, group, data } = event;
      console.log(JSON.stringify({ id, type, subject, group, data }));
    }
    response.writeHead(204).end();
  } catch (error) {
    console.error(`refused: ${error.message}`);
    response.writeHead(error instanceof Refused ? error.status : 500, { Connection: "close" }).end();
  }
});
server.listen(Number(options.port), () => console.error(`listening on port ${server.address().port}`));
