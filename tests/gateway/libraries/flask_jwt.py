"""What flask-jwt-extended says of tokens, and tokens that it makes. One argument of JSON; JSON is printed."""
import json
import sys

from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token, get_jwt_identity, jwt_required

asked = json.loads(sys.argv[1])
app = Flask(__name__)
app.config["JWT_SECRET_KEY"] = asked["secret"]
JWTManager(app)


@app.get("/access")
@jwt_required()
def access():
    return {"identity": get_jwt_identity()}


@app.get("/refresh")
@jwt_required(refresh=True)
def refresh():
    return {"identity": get_jwt_identity()}


def said(path, token):
    answer = app.test_client().get(path, headers={"Authorization": f"Bearer {token}"})
    return answer.get_json()["identity"] if answer.status_code == 200 else None


with app.app_context():
    made = {"access": create_access_token(asked["identity"]), "refresh": create_refresh_token(asked["identity"])}
read = {name: {path: said(f"/{path}", token) for path in ("access", "refresh")} for name, token in asked["tokens"].items()}
print(json.dumps({"made": made, "read": read}))
