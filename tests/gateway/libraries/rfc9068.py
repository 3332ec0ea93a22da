"""What Authlib's validator of RFC 9068 and PyJWT make of access tokens. Arguments: the URL, the algorithm, the audience."""
import sys
import time

import jwt
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6750 import InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc._rfc7515.registry import JWSRegistry

BASE, ALGORITHM, AUDIENCE = sys.argv[1:4]
TOKEN = f"{BASE}/oauth/token"
KEY_SET = f"{BASE}/.well-known/jwks.json"

# they take EdDSA only where they are told to
if ALGORITHM not in JWSRegistry.recommended:
    JWSRegistry.recommended.append(ALGORITHM)


class Validator(JWTBearerTokenValidator):
    def get_jwks(self):
        return requests.get(KEY_SET).json()


def judged(token, issuer=BASE, audience=AUDIENCE):
    validator = Validator(issuer=issuer, resource_server=audience)
    claims = validator.authenticate_token(token)
    validator.validate_token(claims, None, None)
    return claims


def refused(token, **more):
    try:
        judged(token, **more)
    except InvalidTokenError:
        return
    raise AssertionError(f"taken: {more}")


def by_pyjwt(token):
    keys = jwt.PyJWKClient(KEY_SET)
    required = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"]
    return jwt.decode(
        token, keys.get_signing_key_from_jwt(token), [ALGORITHM], audience=AUDIENCE, issuer=BASE, options={"require": required}
    )


for key in requests.get(KEY_SET).json()["keys"]:
    assert key["alg"] == ALGORITHM and key["use"] == "sig" and key["kid"], key
    assert not {"d", "p", "q", "dp", "dq", "qi", "k", "oth"} & set(key), sorted(key)

session = OAuth2Session("robot", "robot-secret", scope="a", token_endpoint=TOKEN)
of_client = session.fetch_token(TOKEN, grant_type="client_credentials")["access_token"]
of_user = session.fetch_token(TOKEN, grant_type="password", username="ann", password="password of ann")
renewed = session.refresh_token(TOKEN, of_user["refresh_token"])
by_login = requests.post(f"{BASE}/auth/login", json={"username": "ann", "password": "password of ann"}).json()
for token, subject, client, scope in (
    (of_client, "robot", "robot", "a"),
    (of_user["access_token"], "ann", "robot", "a"),
    (renewed["access_token"], "ann", "robot", "a"),
    (by_login["access_token"], "ann", "web", "b"),
):
    header = jwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == ("at+jwt", ALGORITHM) and header["kid"], header
    for claims in (judged(token), by_pyjwt(token)):
        assert (claims["sub"], claims["client_id"], claims["scope"]) == (subject, client, scope), claims
        assert abs(time.time() - claims["iat"]) < 60 and claims["exp"] - claims["iat"] == 900, claims
    refused(token, audience="others")
    refused(token, issuer="https://another.example")
    head, body, signature = token.split(".")
    refused(f"{head}.{body}.{signature[:8]}{'A' if signature[8] != 'A' else 'B'}{signature[9:]}")

# a refresh token is no access token, though it is a JWT by the same key
for refresh in (renewed["refresh_token"], by_login["refresh_token"]):
    assert refresh.count(".") == 2
    refused(refresh)
print("done")
