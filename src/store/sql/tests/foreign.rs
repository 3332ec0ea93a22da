//! Users and tokens of other applications, in tables as `SQLAlchemy` and Django make them.

use super::*;
use crate::store::tables::{Identifier, NamesTable, RolesTable, TokensTable, UsersTable};

mod persons;

fn table(name: &str) -> Identifier {
    Identifier::table(name).unwrap()
}

fn column(name: &str) -> Identifier {
    Identifier::column(name).unwrap()
}

fn flask() -> Tables {
    Tables {
        users: Some(UsersTable {
            table: table("user"),
            id: column("id"),
            name: column("username"),
            password: column("password_hash"),
            role: Some(column("role")),
            roles: None,
            flags: Vec::new(),
            active: None,
        }),
        tokens: Some(TokensTable {
            table: table("token"),
            token: column("token"),
            expires_at: Some(column("expires_at")),
            user: column("user_id"),
        }),
        rehash: true,
    }
}

fn django() -> Tables {
    Tables {
        users: Some(UsersTable {
            table: table("auth_user"),
            id: column("id"),
            name: column("username"),
            password: column("password"),
            role: None,
            roles: Some(RolesTable {
                table: table("auth_user_groups"),
                user: column("user_id"),
                role: column("group_id"),
                names: Some(NamesTable { table: table("auth_group"), id: column("id"), name: column("name") }),
            }),
            flags: vec![(column("is_superuser"), "admin".into()), (column("is_staff"), "staff".into())],
            active: Some(column("is_active")),
        }),
        tokens: None,
        rehash: false,
    }
}

impl Place {
    fn load(on: &On, tables: [&'static str; 3]) -> Self {
        let place = Self::new(on);
        let [sqlite, postgres, mysql] = tables;
        let text = match on.engine() {
            Engine::Sqlite => sqlite,
            Engine::Postgres => postgres,
            Engine::MySql => mysql,
        };
        place.background.block_on(async {
            let pool = match &place.location {
                Location::Sqlite(path) => open::file(path).unwrap(),
                Location::Server(url) => open::server(url).unwrap(),
            };
            let mut tx = pool.begin().await.unwrap();
            tx.db().script(text).await.unwrap();
            tx.commit().await.unwrap();
            pool.close().await;
        });
        place
    }

    /// The API of the reference with two users, one of whom has tokens.
    fn flask(on: &On) -> (Self, SqlStore) {
        let place = Self::load(
            on,
            [
                include_str!("../../../../tests/data/tables/flask_sqlite.sql"),
                include_str!("../../../../tests/data/tables/flask_postgres.sql"),
                include_str!("../../../../tests/data/tables/flask_mysql.sql"),
            ],
        );
        let store = place.open_with(&place.location, &flask()).unwrap();
        let user = on.engine().quoted("user");
        place.execute(
            &store,
            format!(
                "INSERT INTO {user} (id, username, password_hash, role) VALUES \
                 (7, 'ann', 'scrypt:32768:8:1$salt$hash', 'admin'), (8, 'J\u{fc}rgen', 'scrypt:32768:8:1$other$hash', '')"
            ),
        );
        place.execute(
            &store,
            "INSERT INTO token (token, expires_at, user_id) VALUES ('Secret-1', '2030-01-01 00:00:00', 7), \
             ('secret-2', '2020-01-01 00:00:00.500000', 7), ('secret-3', '2030-01-01 00:00:00', 8)",
        );
        (place, store)
    }

    fn django(on: &On) -> (Self, SqlStore) {
        let place = Self::load(
            on,
            [
                include_str!("../../../../tests/data/tables/django_sqlite.sql"),
                include_str!("../../../../tests/data/tables/django_postgres.sql"),
                include_str!("../../../../tests/data/tables/django_mysql.sql"),
            ],
        );
        let store = place.open_with(&place.location, &django()).unwrap();
        for (id, name, superuser, active) in
            [(1, "ann", "TRUE", "TRUE"), (2, "bob", "FALSE", "TRUE"), (3, "eve", "FALSE", "FALSE")]
        {
            place.execute(
                &store,
                format!(
                    "INSERT INTO auth_user (id, password, is_superuser, username, first_name, last_name, email, is_staff, \
                     is_active, date_joined) VALUES ({id}, 'pbkdf2_sha256$1000000$salt$hash', {superuser}, '{name}', '', \
                     '', '', FALSE, {active}, '2026-01-01 00:00:00')"
                ),
            );
        }
        place.execute(&store, "INSERT INTO auth_group (id, name) VALUES (1, 'editors'), (2, 'readers')");
        place.execute(&store, "INSERT INTO auth_user_groups (user_id, group_id) VALUES (2, 2), (2, 1)");
        (place, store)
    }
}

fn roles(store: &SqlStore, name: &str) -> Vec<String> {
    let account = wait(store.account(Subject::user(name))).unwrap();
    account.roles.iter().map(|role| role.as_str().to_owned()).collect()
}

fn clear(store: &SqlStore, text: &str, now: i64) -> Option<OpaqueToken> {
    wait(store.clear_token(secret(text), now))
}

/// 2030-01-01 00:00:00 UTC.
const END: i64 = 1_893_456_000;

fn users_are_found_by_their_exact_name(on: &On) {
    let (_place, store) = Place::flask(on);
    let ann = wait(store.account(ann())).unwrap();
    assert_eq!((&*ann.id, ann.password_hash.expose().as_str()), ("7", "scrypt:32768:8:1$salt$hash"));
    assert_eq!((ann.session_version, ann.disabled), (1, false));
    assert_eq!(roles(&store, "ann"), ["admin"]);
    assert!(roles(&store, "J\u{fc}rgen").is_empty(), "an empty role is none");
    for name in ["Ann", "ann ", "\u{e0}nn", "j\u{fc}rgen", "Jurgen", "%", "' OR 1=1 --", "", "ann\0"] {
        assert!(wait(store.account(Subject::user(name))).is_none(), "{name:?}");
    }
    assert!(wait(store.account(Subject::client("ann"))).is_none());
    let listed = wait(store.accounts(SubjectKind::User));
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|account| account.password_hash.expose().is_empty()));
}

fn a_user_is_found_by_the_id_in_its_one_spelling(on: &On) {
    let (_place, store) = Place::flask(on);
    assert_eq!(wait(store.account_by_id("7".into())).unwrap().subject, ann());
    for id in ["9", "07", "+7", " 7", "7 ", "7.0", "7abc", "ann", "", "99999999999999999999", "7 OR 1=1", "7\0"] {
        assert!(wait(store.account_by_id(id.into())).is_none(), "{id:?}");
    }
}

fn tokens_in_clear_text_are_good_to_the_byte_and_until_their_end(on: &On) {
    let (_place, store) = Place::flask(on);
    let found = clear(&store, "Secret-1", END - 1).unwrap();
    assert_eq!((&found.owner.subject, found.expires_at), (&ann(), Some(END)));
    assert_eq!(&*found.owner.roles, &[Role::from("admin")][..]);
    assert!(clear(&store, "Secret-1", END).is_none(), "expired");
    for text in ["secret-1", "Secret-1 ", "SECRET-1", "Secret", "%", "secret-2", "", "' OR 1=1 --", "Secret-1\0"] {
        assert!(clear(&store, text, END - 1).is_none(), "{text:?}");
        assert!(!wait(store.revoke_clear_token(secret(text))) || text == "secret-2", "{text:?}");
    }
    let (_, start) = wait(store.changes(None));
    assert!(wait(store.revoke_clear_token(secret("Secret-1"))));
    assert!(clear(&store, "Secret-1", END - 1).is_none());
    assert_eq!(wait(store.changes(Some(start))).0, [Change::Token(digest("Secret-1"))]);
    assert!(clear(&store, "secret-3", END - 1).is_some());
}

fn states(place: &Place, store: &SqlStore) -> i64 {
    place.background.block_on(async {
        let count = query("SELECT count(*) AS n FROM portcullis_user_state");
        count.one(store.inner.pool.reading().await.unwrap().db()).await.unwrap().number("n").unwrap()
    })
}

/// The hash of whoever is to be proven and was not seen as they are now.
fn unseen(store: &SqlStore) -> Option<String> {
    match wait(store.claimed(ann())) {
        Some(Claimed::Unseen { password_hash }) => Some(password_hash.expose().clone()),
        Some(Claimed::Account(_)) | None => None,
    }
}

fn whoever_claims_to_be_a_user_leaves_no_trace_until_it_is_proven(on: &On) {
    let (place, store) = Place::flask(on);
    let first = unseen(&store).unwrap();
    assert_eq!(first, "scrypt:32768:8:1$salt$hash");
    assert!(wait(store.claimed(Subject::user("nobody"))).is_none());
    assert_eq!(states(&place, &store), 0);
    // nor does it wait for whoever writes
    let writer = place.background.block_on(store.inner.begin()).unwrap();
    assert!(unseen(&store).is_some());
    place.background.block_on(async { drop(writer) });
    assert!(wait(store.proven(ann(), secret("scrypt:32768:8:1$other$hash"))).is_none(), "proven by another hash");
    let account = wait(store.proven(ann(), secret(&first))).unwrap();
    assert_eq!((account.subject, account.session_version), (ann(), 1));
    assert_eq!(states(&place, &store), 1);
    assert!(matches!(wait(store.claimed(ann())), Some(Claimed::Account(account)) if account.session_version == 1));
    assert!(wait(store.proven(Subject::user("nobody"), secret(""))).is_none());
}

fn a_session_of_before_a_change_behind_our_back_is_dead_whoever_looks_first(on: &On) {
    let (place, store) = Place::flask(on);
    let (owner, now) = (wait(store.account(ann())).unwrap(), place.clock.unix());
    wait(store.issue(Some(token("t", &owner, now + 100)), Some((digest("r"), refresh(&owner, now + 100)))));
    let (_, start) = wait(store.changes(None));
    place.execute(&store, format!("UPDATE {} SET password_hash = 'x' WHERE id = 7", on.engine().quoted("user")));
    // a guess changes nothing, and whatever was issued is dead all the same
    assert_eq!(unseen(&store).as_deref(), Some("x"));
    assert!(wait(store.changes(Some(start))).0.is_empty());
    assert!(wait(store.token(digest("t"), now)).live().is_none());
    assert_eq!(stands(&store, "r"), "revoked");
    place.execute(&store, format!("UPDATE {} SET password_hash = 'y' WHERE id = 7", on.engine().quoted("user")));
    assert_eq!(unseen(&store).as_deref(), Some("y"));
    assert_eq!(wait(store.proven(ann(), secret("y"))).unwrap().session_version, 3);
    assert_eq!(wait(store.changes(Some(start))).0.len(), 2, "each heard of once");
    // what is changed by us counts from what is then in the row
    place.execute(&store, format!("UPDATE {} SET password_hash = 'z' WHERE id = 7", on.engine().quoted("user")));
    assert_eq!(unseen(&store).as_deref(), Some("z"));
    assert!(wait(store.set_disabled(ann(), true)));
    let account = wait(store.proven(ann(), secret("z"))).unwrap();
    assert!(account.disabled && account.session_version == 5);
}

fn a_new_password_ends_every_session_and_the_applications_tokens(on: &On) {
    let (place, store) = Place::flask(on);
    let (owner, now) = (wait(store.account(ann())).unwrap(), place.clock.unix());
    wait(store.issue(Some(token("t", &owner, now + 100)), Some((digest("r"), refresh(&owner, now + 100)))));
    assert!(wait(store.token(digest("t"), now)).live().is_some());
    assert_eq!(stands(&store, "r"), "live");
    assert_eq!(wait(store.tokens(None, now)).len(), 2);
    assert!(wait(store.set_password(ann(), secret("new"))));
    assert!(wait(store.token(digest("t"), now)).live().is_none());
    assert_eq!(stands(&store, "r"), "revoked");
    assert!(clear(&store, "Secret-1", now).is_none());
    assert!(clear(&store, "secret-3", now).is_some(), "of another user");
    let account = wait(store.account(ann())).unwrap();
    assert_eq!((account.password_hash.expose().as_str(), account.session_version), ("new", 2));
    assert!(account.sessions_ended_at >= now);
}

fn a_changed_password_does_not_undo_what_was_done_meanwhile(on: &On) {
    let (place, store) = Place::flask(on);
    let proven = wait(store.account(ann())).unwrap().session_version;
    place.execute(&store, format!("UPDATE {} SET password_hash = 'reset' WHERE id = 7", on.engine().quoted("user")));
    assert!(wait(store.change_password(ann(), secret("new"), proven)).is_none(), "reset by the application");
    let reset = wait(store.account(ann())).unwrap();
    assert_eq!(reset.password_hash.expose(), "reset");
    assert!(wait(store.set_password(ann(), secret("again"))));
    assert!(wait(store.change_password(ann(), secret("new"), reset.session_version)).is_none(), "reset by us");
    let again = wait(store.account(ann())).unwrap();
    assert_eq!(again.password_hash.expose(), "again");
    assert!(wait(store.change_password(ann(), secret("new"), again.session_version)).is_some());
    let done = wait(store.account(ann())).unwrap();
    assert_eq!((done.password_hash.expose().as_str(), done.session_version), ("new", again.session_version + 1));
    assert!(wait(store.set_disabled(ann(), true)));
    let disabled = wait(store.account(ann())).unwrap();
    assert!(wait(store.change_password(ann(), secret("newer"), disabled.session_version)).is_none(), "disabled");
}

fn a_password_changed_behind_our_back_ends_every_session(on: &On) {
    let (place, store) = Place::flask(on);
    let (owner, now) = (wait(store.account(ann())).unwrap(), place.clock.unix());
    wait(store.issue(Some(token("t", &owner, now + 100)), Some((digest("r"), refresh(&owner, now + 100)))));
    let (_, start) = wait(store.changes(None));
    let user = on.engine().quoted("user");
    for (round, change) in ["password_hash = 'x' WHERE id = 7", "password_hash = 'y' WHERE id = 7"].iter().enumerate() {
        place.execute(&store, format!("UPDATE {user} SET {change}"));
        assert!(wait(store.token(digest("t"), now)).live().is_none());
        assert_eq!(stands(&store, "r"), "revoked");
        let account = wait(store.jwt_standing(ann(), vec![])).account.unwrap();
        assert_eq!(account.session_version, i64::try_from(round).unwrap() + 2);
    }
    assert_eq!(
        wait(store.changes(Some(start))).0,
        [Change::Subject(ann()), Change::Subject(ann())],
        "others hear of it"
    );
}

fn a_user_made_anew_behind_our_back_is_another(on: &On) {
    let (place, store) = Place::flask(on);
    let (owner, now) = (wait(store.account(ann())).unwrap(), place.clock.unix());
    wait(store.issue(Some(token("t", &owner, now + 100)), None));
    let user = on.engine().quoted("user");
    place.execute(&store, "DELETE FROM token");
    place.execute(&store, format!("DELETE FROM {user} WHERE id = 7"));
    assert!(wait(store.token(digest("t"), now)).live().is_none());
    assert!(wait(store.account(ann())).is_none());
    place.execute(
        &store,
        format!(
            "INSERT INTO {user} (id, username, password_hash, role) VALUES (9, 'ann', 'scrypt:32768:8:1$salt$hash', '')"
        ),
    );
    assert!(wait(store.token(digest("t"), now)).live().is_none());
    assert_eq!(wait(store.account(ann())).unwrap().session_version, 2);
}

fn users_are_written_where_the_application_keeps_them(on: &On) {
    let (place, store) = Place::flask(on);
    let user = on.engine().quoted("user");
    if on.engine() == Engine::Postgres {
        // the rows of this test brought their own ids
        place.execute(&store, format!("SELECT setval(pg_get_serial_sequence('{user}', 'id'), 100)"));
    }
    let bob = Subject::user("bob");
    let added = wait(store.add_account(bob.clone(), secret("h"), vec!["user".into()], vec![]));
    assert_eq!(added, Added::Yes);
    assert_eq!(roles(&store, "bob"), ["user"]);
    assert_eq!(wait(store.add_account(bob.clone(), secret("x"), vec![], vec![])), Added::Taken);
    if on.engine() == Engine::MySql {
        let alike = store.add_account(Subject::user("BOB"), secret("x"), vec![], vec![]);
        assert_eq!(wait(alike), Added::Taken, "to the application it is the same name");
    }
    assert!(wait(store.set_roles(bob.clone(), vec!["admin".into()])));
    assert_eq!(roles(&store, "bob"), ["admin"]);
    let two = store.set_roles(bob.clone(), vec!["admin".into(), "user".into()]);
    assert!(matches!(Place::wait(two), Err(StoreError::Cannot(why)) if why.contains("no place for the role `user`")));
    assert!(wait(store.rehash(bob.clone(), secret("h"), secret("h2"))));
    assert!(!wait(store.rehash(bob.clone(), secret("h"), secret("h3"))));
    let account = wait(store.account(bob.clone())).unwrap();
    assert_eq!((account.password_hash.expose().as_str(), account.session_version), ("h2", 1), "and no session ended");
    assert!(wait(store.set_disabled(bob.clone(), true)));
    assert!(wait(store.account(bob.clone())).unwrap().disabled);
    assert!(wait(store.set_disabled(bob.clone(), false)));
    assert!(wait(store.remove_account(bob.clone())));
    assert!(wait(store.account(bob.clone())).is_none());
    assert_eq!(wait(store.jwt_standing(bob.clone(), vec![])).removed.map(|left| left.session_version), Some(2));
    wait(store.add_account(bob.clone(), secret("h"), vec![], vec![]));
    assert_eq!(wait(store.account(bob.clone())).unwrap().session_version, 3, "versions never come twice");
    let long = store.add_account(Subject::user("n".repeat(60)), secret("h"), vec!["r".repeat(30).into()], vec![]);
    let long = Place::wait(long);
    assert!(on.engine() == Engine::Sqlite || matches!(long, Ok(Added::TooLong(_))), "nothing is cut off: {long:?}");
}

fn what_is_damaged_in_a_row_harms_nobody_else(on: &On) {
    let (place, store) = Place::flask(on);
    // a column of bytes can hold anything on each of them
    let (retype, damage) = match on.engine() {
        Engine::Sqlite => ("SELECT 1", "UPDATE \"user\" SET password_hash = x'ff00ff' WHERE id = 8"),
        Engine::Postgres => (
            "ALTER TABLE \"user\" ALTER COLUMN password_hash TYPE bytea USING convert_to(password_hash, 'UTF8')",
            "UPDATE \"user\" SET password_hash = '\\xff00ff' WHERE id = 8",
        ),
        Engine::MySql => (
            "ALTER TABLE `user` MODIFY password_hash VARBINARY(255)",
            "UPDATE `user` SET password_hash = x'ff00ff' WHERE id = 8",
        ),
    };
    place.execute(&store, retype);
    place.execute(&store, damage);
    wait(store.close());
    let store = place.open_with(&place.location, &flask()).unwrap();
    let good = "scrypt:32768:8:1$salt$hash";
    let in_use = wait(store.hashes_in_use());
    assert!(in_use.iter().any(|hash| hash.expose() == good), "{} hashes", in_use.len());
    let damaged = Subject::user("J\u{fc}rgen");
    assert!(matches!(
        wait(store.claimed(damaged.clone())),
        Some(Claimed::Unseen { password_hash }) if !password_hash.expose().contains('$')
    ));
    assert!(wait(store.account(damaged)).is_some());
    assert_eq!(wait(store.accounts(SubjectKind::User)).len(), 2);
    assert!(wait(store.rehash(ann(), secret(good), secret("another"))));
    assert_eq!(wait(store.account(ann())).unwrap().password_hash.expose(), "another");
    if on.engine() == Engine::Sqlite {
        place.execute(&store, "UPDATE \"user\" SET role = CAST(x'ff' AS TEXT) WHERE id = 8");
        assert_eq!(roles(&store, "J\u{fc}rgen"), [""; 0], "no role is right");
        place.execute(&store, "UPDATE \"user\" SET username = CAST(x'78ff' AS TEXT) WHERE id = 8");
        let names: Vec<_> =
            wait(store.accounts(SubjectKind::User)).into_iter().map(|account| account.subject).collect();
        assert_eq!(names, [ann()], "nobody can give such a name");
    }
}

fn two_users_of_one_name_are_nobody(on: &On) {
    let (place, store) = Place::flask(on);
    let unbind = match on.engine() {
        Engine::Sqlite => &["ALTER TABLE \"user\" RENAME TO old", "CREATE TABLE \"user\" AS SELECT * FROM old"][..],
        Engine::Postgres => &["ALTER TABLE \"user\" DROP CONSTRAINT user_username_key"],
        Engine::MySql => &["ALTER TABLE `user` DROP INDEX username"],
    };
    for statement in unbind {
        place.execute(&store, *statement);
    }
    let user = on.engine().quoted("user");
    let row = format!("INSERT INTO {user} (id, username, password_hash, role) VALUES (9, 'ann', 'h', 'admin')");
    place.execute(&store, row);
    assert!(wait(store.claimed(ann())).is_none());
    assert!(wait(store.account(ann())).is_none());
    assert!(wait(store.jwt_standing(ann(), vec![])).account.is_none());
    assert!(!wait(store.set_disabled(ann(), true)), "nor is one of them changed for the other");
    assert_eq!(wait(store.add_account(ann(), secret("h"), vec![], vec![])), Added::Taken);
    assert!(wait(store.account_by_id("9".into())).is_none(), "what is kept beside a row is by the name");
}

fn clients_stay_ours(on: &On) {
    let (_place, store) = Place::flask(on);
    let app = Subject::client("ann");
    assert_eq!(wait(store.add_account(app.clone(), secret("s"), vec!["r".into()], vec!["a".into()])), Added::Yes);
    assert_eq!(&*wait(store.account(app)).unwrap().scopes, &[Scope::from("a")][..]);
    assert_eq!(roles(&store, "ann"), ["admin"]);
}

fn roles_come_from_groups_and_flags(on: &On) {
    let (place, store) = Place::django(on);
    assert_eq!(roles(&store, "ann"), ["admin"]);
    assert_eq!(roles(&store, "bob"), ["editors", "readers"]);
    assert!(wait(store.account(Subject::user("eve"))).unwrap().disabled, "not active");
    assert!(wait(store.set_roles(Subject::user("bob"), vec!["readers".into(), "admin".into()])));
    assert_eq!(roles(&store, "bob"), ["readers", "admin"]);
    let unknown = Place::wait(store.set_roles(Subject::user("bob"), vec!["owners".into()]));
    assert!(matches!(unknown, Err(StoreError::Cannot(why)) if why.contains("no role `owners`")));
    assert_eq!(roles(&store, "bob"), ["readers", "admin"], "refused as a whole");
    assert!(wait(store.set_disabled(Subject::user("bob"), true)));
    let inactive = place.background.block_on(async {
        let count = query("SELECT count(*) AS n FROM auth_user WHERE NOT is_active");
        count.one(store.inner.pool.reading().await.unwrap().db()).await.unwrap().number("n").unwrap()
    });
    assert_eq!(inactive, 2, "the application knows it too");
    assert!(wait(store.set_disabled(Subject::user("eve"), false)));
    assert!(!wait(store.account(Subject::user("eve"))).unwrap().disabled);
    let lacking = Place::wait(store.add_account(Subject::user("new"), secret("h"), vec![], vec![]));
    assert!(matches!(lacking, Err(StoreError::Cannot(_))), "its other columns have no defaults: {lacking:?}");
    assert!(wait(store.remove_account(Subject::user("bob"))));
    assert!(wait(store.account(Subject::user("bob"))).is_none());
}

fn what_the_database_does_not_have_is_named_at_the_start(on: &On) {
    type Spoil = fn(&mut Tables);
    let (place, store) = Place::flask(on);
    wait(store.close());
    let spoils: [(&str, Spoil, &str); 6] = [
        ("a table", |tables| tables.users.as_mut().unwrap().table = table("users"), "no table `users`"),
        (
            "a column",
            |tables| tables.users.as_mut().unwrap().role = Some(column("rolle")),
            "its columns are id, username",
        ),
        (
            "a table of roles",
            |tables| {
                tables.users.as_mut().unwrap().roles =
                    Some(RolesTable { table: table("no"), user: column("a"), role: column("b"), names: None });
            },
            "`store.users.roles`",
        ),
        ("a flag", |tables| tables.users.as_mut().unwrap().flags = vec![(column("no"), "a".into())], "no column `no`"),
        ("a table of tokens", |tables| tables.tokens.as_mut().unwrap().table = table("tokens"), "no table `tokens`"),
        ("an end", |tables| tables.tokens.as_mut().unwrap().expires_at = Some(column("ends")), "no column `ends`"),
    ];
    for (name, spoil, expected) in spoils {
        let mut tables = flask();
        spoil(&mut tables);
        match place.open_with(&place.location, &tables) {
            Err(StoreError::Broken(why)) => assert!(why.contains(expected), "{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    if on.engine() != Engine::Sqlite {
        let mut tables = flask();
        tables.tokens.as_mut().unwrap().expires_at = Some(column("token"));
        let opened = place.open_with(&place.location, &tables);
        assert!(matches!(opened, Err(StoreError::Broken(why)) if why.contains("of a type that cannot be used")));
    }
    assert!(place.open_with(&place.location, &flask()).is_ok());
}

fn the_hashes_in_use_are_those_of_the_application(on: &On) {
    let (_place, store) = Place::flask(on);
    let hashes = wait(store.hashes_in_use());
    assert!(hashes.iter().filter(|hash| hash.expose().starts_with("scrypt:32768:8:1$")).count() > hashes.len() / 2);
    let again = wait(store.hashes_in_use());
    assert!(hashes.iter().map(Secret::expose).eq(again.iter().map(Secret::expose)));
}

on_each_engine! {
    users_are_found_by_their_exact_name,
    a_user_is_found_by_the_id_in_its_one_spelling,
    tokens_in_clear_text_are_good_to_the_byte_and_until_their_end,
    whoever_claims_to_be_a_user_leaves_no_trace_until_it_is_proven,
    a_session_of_before_a_change_behind_our_back_is_dead_whoever_looks_first,
    a_new_password_ends_every_session_and_the_applications_tokens,
    a_changed_password_does_not_undo_what_was_done_meanwhile,
    a_password_changed_behind_our_back_ends_every_session,
    a_user_made_anew_behind_our_back_is_another,
    users_are_written_where_the_application_keeps_them,
    what_is_damaged_in_a_row_harms_nobody_else,
    two_users_of_one_name_are_nobody,
    clients_stay_ours,
    roles_come_from_groups_and_flags,
    what_the_database_does_not_have_is_named_at_the_start,
    the_hashes_in_use_are_those_of_the_application,
}
