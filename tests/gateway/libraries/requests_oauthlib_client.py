"""What requests-oauthlib makes of the gateway as an authorization server. One argument: its URL."""
import os
import sys

import requests
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient
from oauthlib.oauth2.rfc6749 import errors
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

# on this machine only
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

BASE = sys.argv[1]
TOKEN = f"{BASE}/oauth/token"
USER, PASSWORD = "user", "pass:wörd"
CLIENT, SECRET = "robot", "robot-secret/+=1"


def refused(error, ask):
    try:
        answer = ask()
    except error as found:
        assert found.description, found
        return
    raise AssertionError(f"{answer} for {error}")


# a client for itself, by Basic and by members
for more in ({"auth": HTTPBasicAuth(CLIENT, SECRET)}, {"client_secret": SECRET, "include_client_id": True}):
    session = OAuth2Session(client=BackendApplicationClient(client_id=CLIENT, scope=["orders:write"]))
    token = session.fetch_token(TOKEN, **more)
    assert token["scope"] == ["orders:write"] and token["token_type"].lower() == "bearer", token
    assert session.get(f"{BASE}/write/x").status_code == 200

# a user, whose token is renewed by itself once it has ended
renewed = []
session = OAuth2Session(
    client=LegacyApplicationClient(client_id=CLIENT),
    auto_refresh_url=TOKEN,
    auto_refresh_kwargs={"client_id": CLIENT, "client_secret": SECRET},
    token_updater=renewed.append,
)
token = session.fetch_token(TOKEN, username=USER, password=PASSWORD, auth=HTTPBasicAuth(CLIENT, SECRET))
assert session.get(f"{BASE}/user/x").status_code == 200 and not renewed
session.token = {**token, "expires_in": -1, "expires_at": 1}
assert session.get(f"{BASE}/user/x").status_code == 200
assert len(renewed) == 1 and renewed[0]["refresh_token"] != token["refresh_token"], renewed

# log out, as oauthlib writes RFC 7009
client = LegacyApplicationClient(client_id=CLIENT, refresh_token=renewed[0]["refresh_token"])
url, headers, body = client.prepare_token_revocation_request(
    f"{BASE}/oauth/revoke".replace("http:", "https:"), renewed[0]["refresh_token"], token_type_hint="refresh_token"
)
answer = requests.post(url.replace("https:", "http:"), headers=headers, data=body, auth=(CLIENT, SECRET))
assert answer.status_code == 200, answer.text
by_basic = HTTPBasicAuth(CLIENT, SECRET)
refused(errors.InvalidGrantError, lambda: session.refresh_token(TOKEN, renewed[0]["refresh_token"]))
assert requests.get(f"{BASE}/user/x", headers={"Authorization": f"Bearer {renewed[0]['access_token']}"}).status_code == 401


def backend(secret=SECRET, client_id=CLIENT, **more):
    client = BackendApplicationClient(client_id=client_id, **more)
    return OAuth2Session(client=client).fetch_token(TOKEN, auth=HTTPBasicAuth(client_id, secret))


def legacy(**more):
    session = OAuth2Session(client=LegacyApplicationClient(client_id=CLIENT))
    return session.fetch_token(TOKEN, auth=by_basic, **more)


# each error under its name
refused(errors.InvalidClientError, lambda: backend(secret="wrong"))
refused(errors.InvalidClientError, lambda: backend(client_id="nobody"))
refused(errors.InvalidScopeError, lambda: backend(scope=["admin"]))
refused(errors.InvalidGrantError, lambda: legacy(username=USER, password="wrong"))
refused(errors.InvalidGrantError, lambda: session.refresh_token(TOKEN, "pcr_made-up"))
strange = BackendApplicationClient(client_id=CLIENT)
strange.grant_type = "urn:example:other"
refused(errors.UnsupportedGrantTypeError, lambda: OAuth2Session(client=strange).fetch_token(TOKEN, auth=by_basic))
print("done")
