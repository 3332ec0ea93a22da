//! OAuth clients that others wrote, Authlib and requests-oauthlib, against the endpoints and tokens of the RFCs: each grant,
//! each error, the metadata, the keys, and what a resource server makes of a token.

use crate::support::outside::run_python;
use crate::support::{Gateway, Setup, Signer};

const AUTHLIB: &str = include_str!("libraries/authlib_client.py");
const RFC9068: &str = include_str!("libraries/rfc9068.py");
const REQUESTS_OAUTHLIB: &str = include_str!("libraries/requests_oauthlib_client.py");

/// ES256, since not all of them verify `EdDSA` unasked.
const RULES: &str = "
auth:
  jwt: { issuer: '${ISSUER}', audience: [orders-api], keys: [{ id: k1, algorithm: ES256, private_key: k1.pem }] }
limits: { token_endpoints: off, unauthenticated: off }
bootstrap:
  users:
    - { name: user, password: 'pass:wörd', roles: [user] }
  clients:
    - { id: robot, secret: 'robot-secret/+=1', roles: [user], scopes: ['orders:read', 'orders:write'] }
    - { id: inspector, secret: inspector-secret, roles: [introspect] }
endpoints:
  - { path: /oauth/token, action: oauth_token, password_grant: true }
  - { path: /oauth/revoke, action: revoke }
  - { path: /oauth/introspect, action: introspect }
  - { path: /.well-known/jwks.json, action: jwks }
  - { path: /.well-known/oauth-authorization-server, action: metadata }
upstreams: { demo: { builtin: echo } }
routes:
  - { path: /user/**, allow: [user], to: demo }
  - { path: /basic/**, allow: [user], schemes: [basic], to: demo }
  - { path: /write/**, allow: [user], scopes: ['orders:write'], schemes: [bearer], to: demo }
";

/// A gateway that calls itself what clients call it: the metadata say where they are to go.
fn gateway() -> Gateway {
    let setup = Setup::new(RULES).variable("ISSUER", "http://to.be.known");
    setup.write("k1.pem", Signer::es256().pem());
    let gateway = setup.start();
    gateway.reload(&RULES.replace("${ISSUER}", &format!("http://{}", gateway.address())));
    gateway
}

#[test]
fn authlib_finds_each_rfc_kept() {
    let gateway = gateway();
    assert_eq!(run_python(AUTHLIB, &[&format!("http://{}", gateway.address())]), "done");
}

#[test]
fn requests_oauthlib_gets_renews_and_ends_tokens_and_knows_each_error() {
    let gateway = gateway();
    assert_eq!(run_python(REQUESTS_OAUTHLIB, &[&format!("http://{}", gateway.address())]), "done");
}

#[test]
fn access_tokens_are_those_of_rfc_9068_by_each_kind_of_key_and_for_users_who_log_in_without_a_client() {
    for signer in [Signer::rs256(), Signer::es256(), Signer::eddsa()] {
        let rules = |issuer: &str| {
            format!(
                "
auth:
  jwt:
    issuer: '{issuer}'
    audience: [orders-api]
    keys: [{{ id: k1, algorithm: {}, private_key: k1.pem }}]
tokens: {{ refresh_format: jwt, claims: {{ client_id: web, scope: b }} }}
limits: {{ token_endpoints: off, unauthenticated: off }}
bootstrap:
  users: [{{ name: ann, password: password of ann, roles: [user] }}]
  clients: [{{ id: robot, secret: robot-secret, roles: [user], scopes: [a] }}]
endpoints:
  - {{ path: /oauth/token, action: oauth_token, password_grant: true }}
  - {{ path: /auth/login, action: login }}
  - {{ path: /.well-known/jwks.json, action: jwks }}
upstreams: {{ demo: {{ builtin: echo }} }}
routes: [{{ path: /**, allow: [user], to: demo }}]
",
                signer.algorithm()
            )
        };
        let setup = Setup::new(&rules("http://to.be.known"));
        setup.write("k1.pem", signer.pem());
        let gateway = setup.start();
        let url = format!("http://{}", gateway.address());
        gateway.reload(&rules(&url));
        assert_eq!(run_python(RFC9068, &[&url, signer.algorithm(), "orders-api"]), "done", "{}", signer.algorithm());
    }
}
