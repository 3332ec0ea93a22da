"""What djangorestframework-simplejwt says of tokens, and tokens that it makes. One argument of JSON; JSON is printed."""
import json
import sys

import django
from django.conf import settings

asked = json.loads(sys.argv[1])
settings.configure(
    SECRET_KEY="of-nothing-that-is-tested-here-but-long-enough",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework_simplejwt"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SIMPLE_JWT={"SIGNING_KEY": asked["secret"]},
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from rest_framework.test import APIRequestFactory  # noqa: E402
from rest_framework_simplejwt.authentication import JWTAuthentication  # noqa: E402
from rest_framework_simplejwt.exceptions import InvalidToken, TokenError  # noqa: E402
from rest_framework_simplejwt.tokens import RefreshToken  # noqa: E402

call_command("migrate", verbosity=0)
user = User.objects.create_user(asked["identity"])
User.objects.filter(pk=user.pk).update(id=asked["id"])
user = User.objects.get(username=asked["identity"])


def as_access(token):
    request = APIRequestFactory().get("/", HTTP_AUTHORIZATION=f"Bearer {token}")
    try:
        found, _ = JWTAuthentication().authenticate(request)
    except InvalidToken:
        return None
    return found.username


def as_refresh(token):
    try:
        return as_access(str(RefreshToken(token).access_token))
    except TokenError:
        return None


refresh = RefreshToken.for_user(user)
made = {"access": str(refresh.access_token), "refresh": str(refresh)}
read = {name: {"access": as_access(token), "refresh": as_refresh(token)} for name, token in asked["tokens"].items()}
print(json.dumps({"made": made, "read": read}))
