//! The audit log: who did what, from where, by which request or command; and never a secret.

use std::cell::{Cell, RefCell};

use serde_json::{Value, json};

use crate::support::outside::run_python;
use crate::support::{Gateway, Request, Response, Setup, USERS, Upstream, eventually, get, post, routes};

/// Callers come through a proxy that is believed, so that tests choose their addresses and ids.
const RULES: &str = "
trusted_proxies: [127.0.0.1]
log: { access: off, audit: json }
limits:
  token_endpoints: { per_address: off, per_account: { rate: 1/h, burst: 3 }, per_account_anywhere: off }
endpoints:
  - { path: /auth/login, action: login }
  - { path: /auth/register, action: register }
  - { path: /auth/refresh, action: refresh }
  - { path: /auth/logout, action: revoke }
  - { path: /auth/token, action: login, reply: { token: '{token}' } }
  - { path: /auth/change-password, action: change_password }
  - { path: /oauth/token, action: oauth_token, password_grant: true }
  - { path: /oauth/revoke, action: revoke }
  - { path: /oauth/introspect, action: introspect }
";

/// A gateway, what its audit log has said so far, and what must never be in it.
struct Audited {
    gateway: Gateway,
    seen: Cell<usize>,
    requests: Cell<u32>,
    secrets: RefCell<Vec<String>>,
}

const ADDRESS: &str = "2001:db8::7";

fn events(gateway: &Gateway) -> Vec<Value> {
    let lines = gateway.stdout();
    // the last may not be whole yet
    let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    events.filter(|event| event["audit"].is_string()).collect()
}

impl Audited {
    fn new(gateway: Gateway) -> Self {
        Self { gateway, seen: Cell::default(), requests: Cell::default(), secrets: RefCell::default() }
    }

    fn secret(&self, secret: impl Into<String>) -> String {
        let secret = secret.into();
        self.secrets.borrow_mut().push(secret.clone());
        secret
    }

    /// The next events, as many as are expected; each is as `expected` has it, and has nothing else but what `common` says.
    #[track_caller]
    fn told(&self, what: &str, expected: &[Value], common: impl Fn(&Value) -> Vec<&'static str>) {
        let seen = self.seen.get();
        let told = eventually(what, || {
            let told = events(&self.gateway).split_off(seen);
            if told.len() >= expected.len() { Ok(told) } else { Err(told) }
        });
        self.seen.set(seen + told.len());
        assert_eq!(told.len(), expected.len(), "{what}: {told:?}");
        for (event, expected) in told.into_iter().zip(expected) {
            let mut event = event.as_object().unwrap().clone();
            let time = event.remove("time").unwrap();
            assert!(time.as_str().unwrap().ends_with('Z'), "{what}: {time}");
            for name in common(&Value::Object(event.clone())) {
                event.remove(name);
            }
            assert_eq!(Value::Object(event), *expected, "{what}");
        }
    }

    /// Sends a request and looks at what is told of it.
    #[track_caller]
    fn request(&self, request: Request, status: u16, expected: &[Value]) -> Response {
        self.requests.set(self.requests.get() + 1);
        let id = format!("request-{}", self.requests.get());
        let shown = format!("{request:?}");
        let request = request.header("X-Forwarded-For", ADDRESS).header("X-Request-Id", &id);
        let response = self.gateway.send(&request).expect(status);
        self.told(&shown, expected, |event| {
            assert_eq!((&event["address"], &event["request_id"]), (&json!(ADDRESS), &json!(id)), "{shown}: {event}");
            vec!["address", "request_id"]
        });
        response
    }

    /// Carries out a command and looks at what is told of it; what it has printed.
    #[track_caller]
    fn command(&self, arguments: &[&str], input: &str, expected: &[Value]) -> String {
        let (me, host) = (output("id", &["-un"]), output("uname", &["-n"]));
        let done = self.gateway.cli(arguments, input).expect(0);
        self.told(&format!("{arguments:?}"), expected, |event| {
            assert_eq!((&event["operator"], &event["host"]), (&json!(me), &json!(host)), "{event}");
            assert!(event["request_id"].as_str().unwrap().starts_with("command-"), "{event}");
            vec!["operator", "host", "request_id"]
        });
        done.stdout.trim().to_owned()
    }

    fn keeps_secrets(&self) {
        let log = self.gateway.stdout();
        for secret in self.secrets.borrow().iter().filter(|secret| !secret.is_empty()) {
            assert!(!log.contains(secret.as_str()), "{secret} is in the log");
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn audited() -> (Audited, Upstream) {
    let upstream = Upstream::hello();
    let audited = Audited::new(Gateway::start(&format!("{RULES}{USERS}{}", routes(&upstream))));
    let first = [("user", "admin"), ("user", "user"), ("user", "guest"), ("client", "robot")]
        .map(|(kind, name)| of(kind, "account_added", name, json!({ "operator": "bootstrap" })));
    audited.told("the first accounts", &first, |_| Vec::new());
    (audited, upstream)
}

fn of_user(kind: &str, name: &str, more: Value) -> Value {
    of("user", kind, name, more)
}

fn of(subject_kind: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut event = json!({ "audit": kind, "kind": subject_kind, "subject": name });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

#[test]
fn log_ins_and_tokens_are_told_with_the_request_that_did_it() {
    let (audited, _upstream) = audited();
    let login = |user: &str, password: &str| {
        post("/auth/login").json(&json!({ "username": user, "password": audited.secret(password) }))
    };
    let none = json!({});
    let both = json!({ "tokens": "access refresh" });
    let issued = [of_user("login", "user", none.clone()), of_user("token_issued", "user", both.clone())];
    let tokens = audited.request(login("user", "userpassword"), 200, &issued);
    let [access, refresh] = ["access_token", "refresh_token"].map(|name| audited.secret(tokens.member(name)));

    let wrong = of_user("login_failed", "guest", json!({ "reason": "wrong_password" }));
    for guess in 0..3 {
        audited.request(login("guest", &format!("canary-guess-{guess}")), 401, std::slice::from_ref(&wrong));
    }
    let locked = of_user("locked_out", "guest", json!({ "limit": "per_account" }));
    audited.request(login("guest", "guestpassword"), 429, std::slice::from_ref(&locked));
    audited.request(get("/any/x").basic("guest", "guestpassword"), 429, std::slice::from_ref(&locked));
    let unknown = of_user("login_failed", "nobody", json!({ "reason": "unknown_subject" }));
    audited.request(login("nobody", "canary-unknown"), 401, std::slice::from_ref(&unknown));

    // on a route
    let guess = audited.secret("canary-of-a-route");
    let wrong = of_user("login_failed", "admin", json!({ "reason": "wrong_password" }));
    audited.request(get("/any/x").basic("admin", &guess), 401, std::slice::from_ref(&wrong));
    let made_up = audited.secret("canary.of.bearer");
    let refused = json!({ "audit": "token_refused", "reason": "malformed" });
    audited.request(get("/any/x").bearer(&made_up), 401, std::slice::from_ref(&refused));
    let made_up = audited.secret("canary-of-token");
    let refused = json!({ "audit": "token_refused", "reason": "unknown" });
    audited.request(get("/any/x").token(&made_up), 401, std::slice::from_ref(&refused));
    audited.request(get("/any/x").bearer(&access), 200, &[]);
    audited.request(get("/any/x"), 401, &[]);

    let refreshing = post("/auth/refresh").json(&json!({ "refresh_token": refresh }));
    let refreshed = of_user("token_refreshed", "user", both.clone());
    let next = audited.request(refreshing.clone(), 200, std::slice::from_ref(&refreshed));
    let [access, newest] = ["access_token", "refresh_token"].map(|name| audited.secret(next.member(name)));
    audited.request(refreshing.clone(), 200, &[of_user("refresh_repeated", "user", both.clone())]);
    // once what it gave was used, the same comes from somebody else
    let third = post("/auth/refresh").json(&json!({ "refresh_token": newest }));
    let third = audited.request(third, 200, std::slice::from_ref(&refreshed));
    for name in ["access_token", "refresh_token"] {
        audited.secret(third.member(name));
    }
    let failed = of_user("refresh_failed", "user", json!({ "reason": "revoked" }));
    audited.request(refreshing.clone(), 401, &[of_user("refresh_reused", "user", none.clone()), failed.clone()]);
    audited.request(refreshing, 401, &[failed]);
    let unknown = post("/auth/refresh").json(&json!({ "refresh_token": audited.secret("pcr_canary") }));
    audited.request(unknown, 401, &[json!({ "audit": "refresh_failed", "reason": "malformed" })]);
    let refused = of_user("token_refused", "user", json!({ "reason": "revoked" }));
    audited.request(get("/any/x").bearer(&access), 401, std::slice::from_ref(&refused));

    let by_client = post("/oauth/token").basic("robot", "robot-secret-1").form("grant_type=client_credentials");
    let of_robot = of("client", "token_issued", "robot", json!({ "tokens": "access" }));
    let token = audited.request(by_client, 200, std::slice::from_ref(&of_robot));
    let token = audited.secret(token.member("access_token"));
    let revoked = of("client", "token_revoked", "robot", json!({ "tokens": "access" }));
    audited.request(post("/auth/logout").bearer(&token), 200, std::slice::from_ref(&revoked));

    // by clients, of which one may not
    let added = of("client", "account_added", "other", json!({ "roles": "", "scopes": "" }));
    audited.command(&["client", "add", "other", "--secret-stdin"], "other-secret-1", &[added]);
    let password = audited.secret("userpassword");
    let granting = format!("grant_type=password&username=user&password={password}");
    let robot = |path: &str| post(path).basic("robot", "robot-secret-1");
    let via_robot = json!({ "tokens": "access refresh", "client": "robot" });
    let issued = of_user("token_issued", "user", via_robot.clone());
    let granted = audited.request(robot("/oauth/token").form(&granting), 200, std::slice::from_ref(&issued));
    let [_, refresh] = ["access_token", "refresh_token"].map(|name| audited.secret(granted.member(name)));
    let refreshing = format!("grant_type=refresh_token&refresh_token={refresh}");
    let stolen = json!({ "reason": "wrong_client", "client": "other" });
    let other = |path: &str| post(path).basic("other", "other-secret-1");
    audited.request(other("/oauth/token").form(&refreshing), 400, &[of_user("refresh_failed", "user", stolen)]);
    let refused = of("client", "revocation_refused", "other", json!({ "reason": "wrong_client" }));
    audited.request(other("/oauth/revoke").form(&format!("token={refresh}")), 400, &[refused]);
    // nor may who is no client, whatever they hold
    let theirs = json!({ "reason": "wrong_client", "client": "robot" });
    let refused = of_user("revocation_refused", "user", theirs);
    let told = audited.request(post("/oauth/revoke").form(&format!("token={refresh}")), 401, &[refused]);
    told.refused(401, "invalid_client");
    let curious = of("client", "introspection_refused", "other", json!({ "reason": "insufficient_permissions" }));
    audited.request(other("/oauth/introspect").form(&format!("token={refresh}")), 403, &[curious]);
    let by_robot = json!({ "tokens": "refresh", "client": "robot" });
    let revoked = of_user("token_revoked", "user", by_robot);
    audited.request(robot("/oauth/revoke").form(&format!("token={refresh}")), 200, &[revoked]);

    // and one that came to a client comes again once it is no retry any more
    let granted = audited.request(robot("/oauth/token").form(&granting), 200, &[issued]);
    let mut used = Vec::new();
    let mut refresh = audited.secret(granted.member("refresh_token"));
    audited.secret(granted.member("access_token"));
    for _ in 0..2 {
        let refreshing = robot("/oauth/token").form(&format!("grant_type=refresh_token&refresh_token={refresh}"));
        let refreshed = of_user("token_refreshed", "user", via_robot.clone());
        let next = audited.request(refreshing.clone(), 200, &[refreshed]);
        audited.secret(next.member("access_token"));
        refresh = audited.secret(next.member("refresh_token"));
        used.push(refreshing);
    }
    let reused = of_user("refresh_reused", "user", json!({ "client": "robot" }));
    let failed = of_user("refresh_failed", "user", json!({ "reason": "revoked", "client": "robot" }));
    audited.request(used.remove(0), 400, &[reused, failed]);

    let new = audited.secret("Canary-of-registration-1");
    let registering = post("/auth/register").json(&json!({ "username": "somebody", "password": new }));
    audited.request(registering, 201, &[of_user("registered", "somebody", none.clone())]);
    let changed = audited.secret("Canary-of-a-change-1");
    let changing = post("/auth/change-password").basic("somebody", &new);
    let changing = changing.json(&json!({ "password": new, "new_password": changed }));
    audited.request(changing, 200, &[of_user("password_changed", "somebody", none)]);
    audited.keeps_secrets();
}

#[test]
fn a_refused_credential_is_told_at_every_endpoint_as_on_a_route() {
    let (audited, _upstream) = audited();
    let failed = |name: &str, reason: &str| of_user("login_failed", name, json!({ "reason": reason }));
    let change = json!({ "password": "x", "new_password": "long-enough" });
    let changing = || post("/auth/change-password").json(&change);
    for guess in 0..3 {
        let guess = audited.secret(format!("canary-guess-{guess}"));
        audited.request(changing().basic("user", &guess), 401, &[failed("user", "wrong_password")]);
    }
    let locked = of_user("locked_out", "user", json!({ "limit": "per_account" }));
    audited.request(changing().basic("user", "userpassword"), 429, &[locked]);
    audited.request(changing().basic("nobody", "canary"), 401, &[failed("nobody", "unknown_subject")]);
    let made_up = audited.secret("canary.of.bearer");
    let refused = json!({ "audit": "token_refused", "reason": "malformed" });
    audited.request(changing().bearer(&made_up), 401, &[refused]);

    // what cannot be read as a name and a password
    let malformed = [json!({ "audit": "login_failed", "reason": "malformed" })];
    let client = |path: &str| post(path).form("grant_type=client_credentials&token=x");
    for request in [get("/any/x"), changing(), get("/auth/login"), post("/auth/login")]
        .into_iter()
        .chain(["/oauth/token", "/oauth/revoke", "/oauth/introspect"].map(client))
    {
        audited.request(request.authorization("Basic !!!"), 401, &malformed);
    }
    let id_alone = post("/oauth/token").form("grant_type=client_credentials&client_id=robot");
    audited.request(id_alone, 401, &[of("client", "login_failed", "robot", json!({ "reason": "malformed" }))]);
    let refused = json!({ "audit": "refresh_failed", "reason": "malformed_header" });
    audited.request(post("/auth/refresh").authorization("Bearer a,b"), 401, &[refused]);
    // nobody has said who they are
    audited.request(changing(), 401, &[]);
    audited.request(client("/oauth/token"), 401, &[]);
    audited.request(post("/auth/refresh"), 401, &[]);
    audited.keeps_secrets();
}

#[test]
fn a_change_of_password_that_cannot_succeed_tells_nothing_of_the_credential() {
    let (audited, _upstream) = audited();
    for body in [
        json!({ "password": "adminpassword" }),
        json!({ "new_password": "long-enough" }),
        json!({ "password": "adminpassword", "new_password": "short" }),
        json!({ "password": 1, "new_password": "long-enough" }),
    ] {
        let told = ["adminpassword", "canary"].map(|password| {
            let changing = post("/auth/change-password").basic("admin", password).json(&body);
            let mut said = audited.request(changing, 400, &[]).json();
            said.as_object_mut().unwrap().remove("request_id");
            said
        });
        assert_eq!(told[0], told[1], "{body}");
    }
    // without a credential that is the first thing that is missing
    audited.gateway.send(&post("/auth/change-password")).refused(401, "missing_credentials");
}

#[test]
fn a_scope_that_is_not_granted_is_told() {
    let (audited, _upstream) = audited();
    let robot = |form: &str| post("/oauth/token").basic("robot", "robot-secret-1").form(form);
    let password = |password: &str, more: &str| format!("grant_type=password&username=user&password={password}{more}");
    let reason = json!({ "reason": "invalid_scope" });
    let by_robot = json!({ "reason": "invalid_scope", "client": "robot" });
    let alone = post("/oauth/token").form(&password("userpassword", "&scope=canary"));
    audited.request(alone, 400, &[of_user("login_failed", "user", reason.clone())]);
    for scope in ["orders:delete", "orders:read+orders:delete", "%22"] {
        let scope = format!("&scope={scope}");
        let failed = [of("client", "login_failed", "robot", reason.clone())];
        audited.request(robot(&format!("grant_type=client_credentials{scope}")), 400, &failed);
        let failed = [of_user("login_failed", "user", by_robot.clone())];
        // nobody learns by it whether the password is right
        for guess in ["userpassword", "canary"] {
            audited.request(robot(&password(guess, &scope)), 400, &failed);
        }
    }
    let via_robot = json!({ "tokens": "access refresh", "client": "robot" });
    let issued = of_user("token_issued", "user", via_robot);
    let granted = audited.request(robot(&password("userpassword", "&scope=orders:read")), 200, &[issued]);
    let refresh = audited.secret(granted.member("refresh_token"));
    for scope in ["orders:write", "nothing", "%22"] {
        let refreshing = robot(&format!("grant_type=refresh_token&refresh_token={refresh}&scope={scope}"));
        audited.request(refreshing, 400, &[of_user("refresh_failed", "user", by_robot.clone())]);
    }
    audited.keeps_secrets();
}

#[test]
fn what_operators_do_is_told_by_the_gateway_with_their_name_and_machine() {
    let (audited, _upstream) = audited();
    let [one, other] = ["Canary-of-input-1", "Canary-of-input-2"].map(|text| audited.secret(text));
    let none = || json!({});
    let user = |kind: &str, more: Value| [of_user(kind, "ann", more)];
    let client = |kind: &str, more: Value| [of("client", kind, "app", more)];
    audited.command(
        &["user", "add", "ann", "--role", "user", "--role", "editor", "--password-stdin"],
        &one,
        &user("account_added", json!({ "roles": "user,editor", "scopes": "" })),
    );
    audited.command(&["user", "password", "ann", "--password-stdin"], &other, &user("password_changed", none()));
    audited.command(&["user", "roles", "ann", "admin"], "", &user("roles_changed", json!({ "roles": "admin" })));
    audited.command(&["user", "disable", "ann"], "", &user("account_disabled", none()));
    audited.command(&["user", "enable", "ann"], "", &user("account_enabled", none()));
    let printed = audited.command(
        &["client", "add", "app", "--role", "user", "--scope", "orders:read"],
        "",
        &client("account_added", json!({ "roles": "user", "scopes": "orders:read" })),
    );
    audited.secret(printed.split_whitespace().last().unwrap());
    let printed = audited.command(&["client", "rotate", "app"], "", &client("password_changed", none()));
    audited.secret(printed.split_whitespace().last().unwrap());
    audited.command(&["client", "disable", "app"], "", &client("account_disabled", none()));
    audited.command(&["client", "remove", "app"], "", &client("account_removed", none()));
    let token = json!({ "tokens": "token" });
    let issued = audited.command(&["token", "issue", "ann"], "", &user("token_issued", token.clone()));
    let issued = audited.secret(issued);
    audited.command(&["token", "revoke", "--stdin"], &issued, &user("token_revoked", token.clone()));
    let issued = audited.command(&["token", "issue", "ann"], "", &user("token_issued", token.clone()));
    audited.secret(issued);
    let listed = audited.gateway.cli(&["token", "list", "--user", "ann", "--json"], "").expect(0).json();
    let id = listed[0]["id"].to_string();
    audited.command(&["token", "revoke", "--id", &id], "", &user("token_revoked", token));
    let file = audited.gateway.setup.write("users", "eve:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n");
    let imported = of_user("account_added", "eve", json!({ "roles": "user" }));
    audited.command(&["import", "htpasswd", &file.display().to_string()], "", &[imported]);
    audited.command(&["user", "remove", "ann"], "", &user("account_removed", none()));
    // what did not happen is not told
    audited.gateway.cli(&["user", "disable", "nobody"], "").expect(1);
    audited.gateway.cli(&["user", "list"], "").expect(0);
    let key = audited.gateway.cli(&["key", "rotate"], "").expect(0).stdout.trim().to_owned();
    audited.told("key rotate", &[json!({ "audit": "key_rotated", "key": key })], |_| {
        vec!["operator", "host", "request_id", "signs_from"]
    });
    audited.keeps_secrets();
}

#[test]
fn a_token_of_the_applications_own_table_is_told_with_whose_it_was() {
    let upstream = Upstream::hello();
    let store = "store:
  url: sqlite:app.db
  users: { table: user, id: id, name: username, password: password_hash, role: role }
  tokens: { table: token, token: token, user: user_id }
";
    let setup = Setup::new(&format!("{store}{RULES}{}", routes(&upstream)));
    let script = "
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.executescript('''
CREATE TABLE user (id INTEGER PRIMARY KEY, username TEXT UNIQUE, password_hash TEXT, role TEXT);
CREATE TABLE token (id INTEGER PRIMARY KEY, token TEXT UNIQUE, user_id INTEGER);
INSERT INTO user VALUES (7, 'ann', 'x', 'user');
INSERT INTO token VALUES (1, 'kept-in-clear', 7);
''')
";
    run_python(script, &[&setup.path("app.db").display().to_string()]);
    let audited = Audited::new(setup.start());
    let token = audited.secret("kept-in-clear");
    audited.gateway.send(&get("/user/x").token(&token)).expect(200);
    let revoked = of_user("token_revoked", "ann", json!({ "tokens": "token" }));
    audited.command(&["token", "revoke", "--stdin"], &token, &[revoked]);
    audited.keeps_secrets();
}

#[test]
fn what_was_done_while_nobody_served_is_told_by_the_first_that_does_and_by_nobody_else() {
    let upstream = Upstream::hello();
    let setup = Setup::new(&format!("{RULES}{}", routes(&upstream)));
    for number in 0..3 {
        setup.cli(&["user", "add", &format!("user-{number}"), "--password-stdin"], "a-password").expect(0);
    }
    let gateways = [setup.start(), setup.beside().start()];
    let subjects = |gateway: &Gateway| {
        let events = events(gateway).into_iter().filter(|event| event["audit"] == "account_added");
        events.map(|event| event["subject"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let told = |count: usize| {
        let mut told = eventually("all is told", || {
            let told = gateways.iter().flat_map(subjects).collect::<Vec<_>>();
            if told.len() >= count { Ok(told) } else { Err(told) }
        });
        told.sort();
        assert_eq!(told, (0..count).map(|number| format!("user-{number}")).collect::<Vec<_>>());
    };
    told(3);
    for number in 3..9 {
        setup.cli(&["user", "add", &format!("user-{number}"), "--password-stdin"], "a-password").expect(0);
    }
    told(9);
}
