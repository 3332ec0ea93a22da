// An identity provider for tests: oidc-provider over TLS, with keys for three algorithms that change when told to.
// Arguments: a certificate and its key in PEM. Prints its port. `GET /control/rotate` answers once new keys are published;
// `GET /control/fetches` with how often they were asked for.
import https from 'node:https';
import { readFileSync } from 'node:fs';
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

// what it says of a store in memory is of no use here
console.info = console.warn = () => {};

const [cert, key] = process.argv.slice(-2).map((file) => readFileSync(file));
const kinds = {
  RS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};
let generation = 0;
let fetches = 0;
let keys = [];
let provider;

function rotate(issuer) {
  generation += 1;
  const made = Object.entries(kinds).map(([alg, [type, options]]) => ({
    ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
    kid: `${alg}-${generation}`,
    use: 'sig',
    alg,
  }));
  // the ones before stay published until the next change
  keys = [...made, ...keys.slice(0, made.length)];
  provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'robot', client_secret: 'robot-secret', grant_types: ['client_credentials'],
      redirect_uris: [], response_types: [],
    }],
    cookies: { keys: ['not used'] },
    clientBasedCORS: () => false,
    extraTokenClaims: () => ({ realm_access: { roles: ['user'] } }),
    ttl: { ClientCredentials: 600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          scope: 'orders:read',
          audience: 'orders-api',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: new URL(resource).pathname.slice(1) } },
        }),
      },
    },
  });
}

const server = https.createServer({ cert, key }, (request, response) => {
  if (request.url === '/control/rotate') {
    rotate(provider.issuer);
    response.end('done');
  } else if (request.url === '/control/fetches') {
    response.end(String(fetches));
  } else {
    if (request.url === '/jwks') fetches += 1;
    provider.callback()(request, response);
  }
});
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  rotate(`https://localhost:${port}`);
  console.log(port);
});
process.stdin.resume().on('end', () => process.exit());
