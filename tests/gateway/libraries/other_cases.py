"""The cases for people of other names, with other passwords, secrets and tokens, hashed otherwise and in another order.

Two arguments: the cases, and where the others go. Users who are called as their role stay so: roles are the configuration's."""
import json
import random
import sys

ROLES = {"admin", "user", "guest"}
HASHES = ["werkzeug pbkdf2:sha256", "werkzeug scrypt", "passlib pbkdf2-sha256", "django pbkdf2_sha256"]

with open(sys.argv[1], encoding="utf-8") as file:
    cases = json.load(file)
others = {}


def another(old, new):
    others.setdefault(old, new.format(len(others)))


def other_password(old):
    if len(old) > 72:
        return "Z{}-" + "q" * (len(old) - 4)
    return "s3cret : ß{}" if ":" in old else "s3cret - ß{}"


for system in cases["systems"].values():
    fixtures = system["fixtures"]
    for account in fixtures.get("users", []) + fixtures.get("clients", []):
        if account["name"] not in ROLES:
            another(account["name"], "öther{}@example.org")
        another(account["password"], other_password(account["password"]))
    for token in fixtures.get("tokens", []):
        another(token["token"], "{:064x}")
    if "jwt_secret" in fixtures:
        another(fixtures["jwt_secret"], "another-signing-key-of-{}-0123456789abcdefghij")


def in_text(text):
    """A whole text, or where it stands in JSON, in a placeholder, in a greeting."""
    if text in others:
        return others[text]
    for old, new in others.items():
        if len(old) == 64:
            text = text.replace(old, new)
        text = text.replace(f'"{old}"', json.dumps(new)).replace(f":{old}}}", f":{new}}}").replace(f", {old}!", f", {new}!")
        if text.endswith((f", {old}", f" client {old}")):
            text = text[: -len(old)] + new
    return text


def changed(value):
    if isinstance(value, str):
        return in_text(value)
    if isinstance(value, list):
        return [changed(item) for item in value]
    if isinstance(value, dict):
        # names of members stay, those of a form too
        return {
            name: [[key, changed(text)] for key, text in member] if name == "form" else changed(member)
            for name, member in value.items()
        }
    return value


cases["systems"], cases["cases"] = changed(cases["systems"]), changed(cases["cases"])
for system in cases["systems"].values():
    for kind in ("users", "tokens"):
        random.Random(7).shuffle(system["fixtures"].get(kind, []))
    for number, user in enumerate(system["fixtures"].get("users", [])):
        user["stored"] = HASHES[number % len(HASHES)]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    json.dump(cases, file)
