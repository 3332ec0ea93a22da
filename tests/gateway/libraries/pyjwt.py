"""What PyJWT says of a token with the claim `user`, and one that it makes. One argument of JSON; JSON is printed."""
import json
import sys
import time

import jwt

asked = json.loads(sys.argv[1])


def said(token):
    try:
        return jwt.decode(token, asked["secret"], algorithms=["HS256"])["user"]
    except jwt.InvalidTokenError:
        return None


made = {"access": jwt.encode({"user": asked["identity"], "exp": int(time.time()) + 60}, asked["secret"], algorithm="HS256")}
read = {name: {"access": said(token)} for name, token in asked["tokens"].items()}
print(json.dumps({"made": made, "read": read}))
