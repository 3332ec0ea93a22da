"""What Authlib makes of the gateway as an authorization server and of its tokens. One argument: its URL."""
import sys
import time

import jwt
import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from werkzeug.datastructures import WWWAuthenticate

BASE = sys.argv[1]
AUDIENCE = "orders-api"
USER, PASSWORD = "user", "pass:wörd"
CLIENT, SECRET = "robot", "robot-secret/+=1"

# RFC 8414: their own judge of the document
document = requests.get(f"{BASE}/.well-known/oauth-authorization-server").json()
metadata = AuthorizationServerMetadata(document)
metadata.validate()
assert metadata["issuer"] == BASE, metadata
TOKEN, REVOKE, INSPECT = (metadata[f"{name}_endpoint"] for name in ("token", "revocation", "introspection"))

# RFC 7517: PyJWT's own client of key sets
KEYS = jwt.PyJWKClient(metadata["jwks_uri"])


class Validator(JWTBearerTokenValidator):
    """RFC 9068 4, as Authlib has it."""

    def get_jwks(self):
        return requests.get(metadata["jwks_uri"]).json()


def session(way="client_secret_basic", client=CLIENT, secret=SECRET, scope=None):
    return OAuth2Session(client, secret, token_endpoint_auth_method=way, scope=scope, token_endpoint=TOKEN)


def refused(code, ask):
    try:
        answer = ask()
    except AuthlibBaseError as error:
        assert error.error == code, f"{error.error} for {code}"
        assert error.description, code
        return
    raise AssertionError(f"{answer} for {code}")


def opens(token, path, status=200):
    answer = requests.get(f"{BASE}{path}", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == status, (path, answer.status_code, answer.text)
    return answer


def challenge(answer):
    return WWWAuthenticate.from_header(answer.headers["WWW-Authenticate"])


# RFC 6749 4.4 and 2.3.1: by both ways of a client to say who it is
for way in ("client_secret_basic", "client_secret_post"):
    token = session(way).fetch_token(TOKEN, grant_type="client_credentials")
    assert token["token_type"].lower() == "bearer" and token["expires_in"] == 900, token
    assert token["scope"] == "orders:read orders:write" and "refresh_token" not in token, token
    opens(token["access_token"], "/write/x")

# RFC 9068: the header, and every claim that it asks for
validator = Validator(issuer=BASE, resource_server=AUDIENCE)
claims = validator.authenticate_token(token["access_token"])
validator.validate_token(claims, ["orders:read orders:write"], None)
assert claims["client_id"] == claims["sub"] == CLIENT, claims
assert jwt.get_unverified_header(token["access_token"])["typ"] == "at+jwt"
key = KEYS.get_signing_key_from_jwt(token["access_token"])
jwt.decode(token["access_token"], key, algorithms=["ES256"], audience=AUDIENCE, issuer=BASE)
try:
    jwt.decode(token["access_token"], key, algorithms=["ES256"], audience="others", issuer=BASE)
    raise AssertionError("it is for anybody")
except jwt.InvalidAudienceError:
    pass

# scopes: narrowed, carried, and required (RFC 6749 3.3, RFC 6750 3.1)
narrow = session(scope="orders:read").fetch_token(TOKEN, grant_type="client_credentials")
assert narrow["scope"] == "orders:read", narrow
claims = validator.authenticate_token(narrow["access_token"])
validator.validate_token(claims, ["orders:read"], None)
try:
    validator.validate_token(claims, ["orders:write"], None)
    raise AssertionError("more than was asked for")
except InsufficientScopeError:
    pass
opens(narrow["access_token"], "/user/x")
said = challenge(opens(narrow["access_token"], "/write/x", 403))
assert (said.type, said.get("error")) == ("bearer", "insufficient_scope"), said

# RFC 6749 4.3 and 6: a user's password, and a refresh with the scopes narrowed once more
user = session()
first = dict(user.fetch_token(TOKEN, grant_type="password", username=USER, password=PASSWORD))
opens(first["access_token"], "/user/x")
validator.validate_token(validator.authenticate_token(first["access_token"]), None, None)
second = dict(user.refresh_token(TOKEN, first["refresh_token"]))
assert second["refresh_token"] != first["refresh_token"] and second["access_token"] != first["access_token"]
opens(second["access_token"], "/user/x")

# RFC 7662
inspector = session(client="inspector", secret="inspector-secret")
seen = inspector.introspect_token(INSPECT, second["access_token"]).json()
assert seen["active"] and (seen["sub"], seen["client_id"], seen["iss"]) == (USER, CLIENT, BASE), seen
assert seen["exp"] > time.time() and seen["token_type"].lower() == "bearer", seen
assert inspector.introspect_token(INSPECT, second["refresh_token"]).json()["active"]
assert inspector.introspect_token(INSPECT, "made-up").json() == {"active": False}
assert session().introspect_token(INSPECT, second["access_token"]).status_code == 403
assert session(secret="wrong").introspect_token(INSPECT, second["access_token"]).status_code == 401

# RFC 7009: a token and all that came with it
assert user.revoke_token(REVOKE, second["refresh_token"], token_type_hint="refresh_token").status_code == 200
assert inspector.introspect_token(INSPECT, second["refresh_token"]).json() == {"active": False}
refused("invalid_grant", lambda: user.refresh_token(TOKEN, second["refresh_token"]))
said = challenge(opens(second["access_token"], "/user/x", 401))
assert (said.type, said.get("error")) == ("bearer", "invalid_token"), said
assert user.revoke_token(REVOKE, "made-up").status_code == 200
assert session(secret="wrong").revoke_token(REVOKE, "made-up").status_code == 401
alone = session().fetch_token(TOKEN, grant_type="client_credentials")["access_token"]
assert user.revoke_token(REVOKE, alone, token_type_hint="access_token").status_code == 200
opens(alone, "/user/x", 401)

# RFC 6749 5.2, each error
refused("invalid_client", lambda: session(secret="wrong").fetch_token(TOKEN, grant_type="client_credentials"))
refused("invalid_client", lambda: session(client="nobody").fetch_token(TOKEN, grant_type="client_credentials"))
refused("invalid_scope", lambda: session(scope="admin").fetch_token(TOKEN, grant_type="client_credentials"))
refused("unsupported_grant_type", lambda: session().fetch_token(TOKEN, grant_type="urn:example:other"))
refused("invalid_grant", lambda: session().fetch_token(TOKEN, grant_type="password", username=USER, password="wrong"))
refused("invalid_request", lambda: session().fetch_token(TOKEN, grant_type="password", username=USER))
refused("invalid_grant", lambda: session().refresh_token(TOKEN, "pcr_made-up"))

# RFC 6750 3: with and without a token
said = challenge(opens("made-up", "/user/x", 401))
assert (said.type, said.get("error")) == ("bearer", "invalid_token"), said
said = challenge(requests.get(f"{BASE}/write/x"))
assert said.type == "bearer" and said.get("realm") and said.get("error") is None, said

# RFC 7617: UTF-8, and a colon in the password
assert requests.get(f"{BASE}/user/x", auth=(USER.encode(), PASSWORD.encode())).status_code == 200
answer = requests.get(f"{BASE}/basic/x", auth=(USER.encode(), b"wrong"))
said = challenge(answer)
assert (answer.status_code, said.type, said.get("charset")) == (401, "basic", "UTF-8"), said

# RFC 9457
answer = requests.get(f"{BASE}/user/x", headers={"Accept": "application/problem+json"})
problem = answer.json()
assert answer.headers["Content-Type"] == "application/problem+json" and problem["status"] == 401, problem
assert isinstance(problem["type"], str) and isinstance(problem["title"], str), problem

# RFC 6749 5.1
for grant in ({"grant_type": "client_credentials"}, {"grant_type": "client_credentials", "scope": "admin"}):
    answer = requests.post(TOKEN, data=grant, auth=(CLIENT, SECRET))
    assert answer.headers["Cache-Control"] == "no-store", answer.headers
print("done")
