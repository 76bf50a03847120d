// The lab's identity provider: oidc-provider with people, clients and keys that the tests name.
// node server.mjs SETTINGS.json; says READY on standard output when it listens.
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const person = (name) => settings.people[name];

const provider = new Provider(settings.issuer, {
  clients: settings.clients,
  jwks: settings.jwks,
  claims: { openid: ['sub'], profile: ['preferred_username'], groups: ['groups', 'entitlements'] },
  scopes: ['openid', 'profile', 'groups', 'compute'],
  pkce: { required: () => true },
  conformIdTokenClaims: false,
  // By the login name, which the development form asks for
  findAccount: (ctx, id) => (person(id) ? { accountId: id, claims: () => ({ ...person(id), sub: id }) } : undefined),
  extraTokenClaims: (ctx, token) => (token.accountId ? person(token.accountId) : undefined),
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    userinfo: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'compute',
        audience: resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: settings.lifetime,
        jwt: { sign: { alg: settings.algorithm } },
      }),
    },
  },
  ttl: { AccessToken: settings.lifetime, IdToken: settings.lifetime, Session: 600, Grant: 600, Interaction: 600 },
  cookies: { keys: ['only for the lab'] },
});

const server = provider.listen(settings.port, '127.0.0.1', () => console.log('READY'));
process.stdin.on('end', () => server.close(() => process.exit(0)));
process.stdin.resume();
