// Exchanges a token by a client that others have written: openid-client.
//
// Arguments: the folder with node_modules, the token endpoint, the token, and parameters as NAME=VALUE. Prints the answer as JSON.
import { pathToFileURL } from 'node:url';

const [modules, endpoint, token, ...asked] = process.argv.slice(2);
const client = await import(pathToFileURL(`${modules}/node_modules/openid-client/build/index.js`));

const server = { issuer: 'https://iam.example.com', token_endpoint: endpoint };
const config = new client.Configuration(server, 'deploy', undefined, client.None());
client.allowInsecureRequests(config); // The test's server is on this machine.
const answer = await client.genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token: token,
  subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
  ...Object.fromEntries(asked.map((one) => one.split('='))),
});
console.log(JSON.stringify(answer));
