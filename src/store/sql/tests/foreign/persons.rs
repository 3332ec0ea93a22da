//! Who a row is, when the application renames it or gives its id or its name to somebody else.

use std::collections::HashMap;

use super::*;

const ANN_HASH: &str = "scrypt:32768:8:1$salt$hash";
const CAT_HASH: &str = "scrypt:32768:8:1$of-cat$hash";
const EVE_HASH: &str = "scrypt:32768:8:1$of-eve$hash";

fn user(name: &str) -> Subject {
    Subject::user(name)
}

fn account(store: &SqlStore, name: &str) -> Account {
    wait(store.account(user(name))).unwrap()
}

impl Place {
    /// What the application does with its users: `{user}` is its table.
    fn api(&self, store: &SqlStore, statement: &str) {
        self.execute(store, statement.replace("{user}", &self.on.engine().quoted("user")));
    }

    fn insert(&self, store: &SqlStore, id: i64, name: &str, hash: &str) {
        let row =
            format!("INSERT INTO {{user}} (id, username, password_hash, role) VALUES ({id}, '{name}', '{hash}', 'r')");
        self.api(store, &row);
    }

    fn rename(&self, store: &SqlStore, id: i64, name: &str) {
        self.api(store, &format!("UPDATE {{user}} SET username = '{name}' WHERE id = {id}"));
    }

    /// Two users who give each other their names.
    fn swap(&self, store: &SqlStore, (one, one_name): (i64, &str), (other, other_name): (i64, &str)) {
        self.rename(store, one, "between");
        self.rename(store, other, one_name);
        self.rename(store, one, other_name);
    }

    /// Cat of id 9 who has a session of each kind and was known up to the version that is given back.
    fn cat(&self, store: &SqlStore) -> Account {
        self.insert(store, 9, "cat", CAT_HASH);
        let (cat, now) = (account(store, "cat"), self.clock.unix());
        wait(store.issue(Some(token("t", &cat, now + 100)), Some((digest("r"), refresh(&cat, now + 100)))));
        assert!(wait(store.token(digest("t"), now)).live().is_some());
        cat
    }

    /// Whether the sessions that cat had are dead, and every token by which they would be somebody else.
    fn cat_is_gone(&self, store: &SqlStore, version: i64) {
        let now = self.clock.unix();
        assert!(wait(store.token(digest("t"), now)).live().is_none());
        assert_eq!(stands(store, "r"), "revoked");
        let standing = wait(store.jwt_standing(user("cat"), vec![]));
        assert!(standing.account.is_none());
        let left = standing.removed.unwrap();
        assert!(left.session_version >= version && left.removed_at > now - 60, "{left:?}");
    }
}

fn an_id_that_the_application_gives_again_is_another_person(on: &On) {
    let (place, store) = Place::flask(on);
    let cat = place.cat(&store);
    assert!(wait(store.set_disabled(user("cat"), true)));
    let (_, start) = wait(store.changes(None));
    place.api(&store, "DELETE FROM {user} WHERE id = 9");
    place.insert(&store, 9, "eve", EVE_HASH);
    let listed = wait(store.accounts(SubjectKind::User));
    assert!(listed.iter().all(|account| !account.disabled), "nor is eve listed as cat");
    // by the id, as a JWT would name it
    let eve = wait(store.account_by_id("9".into())).unwrap();
    assert_eq!(eve.subject, user("eve"));
    assert!(eve.session_version > cat.session_version + 1, "{}", eve.session_version);
    assert!(!eve.disabled && eve.sessions_ended_at > place.clock.unix() - 60);
    assert_eq!(account(&store, "eve").session_version, eve.session_version, "and no further change");
    place.cat_is_gone(&store, cat.session_version + 1);
    let heard = wait(store.changes(Some(start))).0;
    for subject in [user("cat"), user("eve")] {
        assert!(heard.contains(&Change::Subject(subject.clone())), "{subject:?}");
    }
    // and who is called cat from now on is neither
    place.insert(&store, 10, "cat", "another$hash");
    let again = account(&store, "cat");
    assert!(again.session_version > cat.session_version + 1 && again.sessions_ended_at > 0);
}

fn an_id_that_is_given_again_after_a_removal_is_another_person(on: &On) {
    let (place, store) = Place::flask(on);
    let cat = place.cat(&store);
    assert!(wait(store.remove_account(user("cat"))));
    place.insert(&store, 9, "eve", EVE_HASH);
    let eve = wait(store.account_by_id("9".into())).unwrap();
    assert_eq!(eve.subject, user("eve"));
    assert!(eve.session_version > cat.session_version);
    assert!(eve.sessions_ended_at > place.clock.unix() - 60, "for tokens that bear no version");
    place.cat_is_gone(&store, cat.session_version);
    // of several removals the last one counts
    assert!(wait(store.remove_account(user("eve"))));
    place.insert(&store, 9, "cat", CAT_HASH);
    assert!(account(&store, "cat").session_version > eve.session_version);
}

fn a_user_added_in_place_of_a_removed_one_is_another_person(on: &On) {
    let (place, store) = Place::flask(on);
    if on.engine() != Engine::Sqlite {
        return;
    }
    let cat = place.cat(&store);
    assert!(wait(store.remove_account(user("cat"))));
    assert_eq!(wait(store.add_account(user("eve"), secret(EVE_HASH), vec!["admin".into()], vec![])), Added::Yes);
    let eve = account(&store, "eve");
    assert_eq!(eve.id, cat.id, "or this tests nothing");
    assert!(eve.session_version > cat.session_version && eve.sessions_ended_at > 0);
}

fn a_renamed_user_is_the_same_person(on: &On) {
    let (place, store) = Place::flask(on);
    let first = place.cat(&store);
    assert!(wait(store.set_password(user("cat"), secret(EVE_HASH))));
    let cat = account(&store, "cat");
    place.rename(&store, 9, "tom");
    let tom = wait(store.account_by_id("9".into())).unwrap();
    assert_eq!(tom.subject, user("tom"));
    assert_eq!((tom.session_version, tom.sessions_ended_at), (cat.session_version, cat.sessions_ended_at));
    assert!(tom.session_version > first.session_version, "what was ended stays so");
    place.cat_is_gone(&store, cat.session_version);
    assert!(wait(store.set_disabled(user("tom"), true)));
    place.rename(&store, 9, "rob");
    let rob = account(&store, "rob");
    assert!(rob.disabled);
    assert_eq!(rob.session_version, tom.session_version + 1);
    assert_eq!(states(&place, &store), 1);
    // whoever has the name next is another
    place.insert(&store, 10, "tom", CAT_HASH);
    let next = account(&store, "tom");
    assert!(!next.disabled && next.session_version > rob.session_version && next.sessions_ended_at > 0);
    // and so is the person themself in the name of somebody before
    assert!(wait(store.remove_account(user("tom"))));
    place.rename(&store, 9, "tom");
    let back = account(&store, "tom");
    assert!(back.disabled && back.session_version > next.session_version);
}

fn a_rename_that_comes_with_another_hash_is_another_person(on: &On) {
    let (place, store) = Place::flask(on);
    let cat = place.cat(&store);
    assert!(wait(store.set_disabled(user("cat"), true)));
    place.api(&store, &format!("UPDATE {{user}} SET username = 'tom', password_hash = '{EVE_HASH}' WHERE id = 9"));
    let tom = account(&store, "tom");
    assert!(!tom.disabled && tom.session_version > cat.session_version + 1);
    assert!(tom.sessions_ended_at > place.clock.unix() - 60);
    place.cat_is_gone(&store, cat.session_version + 1);
}

fn a_hash_that_others_may_have_tells_nobody(on: &On) {
    for hash in ["", "!", "{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "md5$$d41d8cd98f00b204e9800998ecf8427e"] {
        let (place, store) = Place::flask(on);
        place.insert(&store, 9, "cat", hash);
        let cat = account(&store, "cat");
        place.api(&store, "DELETE FROM {user} WHERE id = 9");
        place.insert(&store, 9, "eve", hash);
        let eve = account(&store, "eve");
        assert!(eve.session_version > cat.session_version && eve.sessions_ended_at > 0, "{hash}");
    }
}

fn users_who_swap_their_names_stay_who_they_are(on: &On) {
    for first in ["ann", "cat"] {
        let (place, store) = Place::flask(on);
        let cat = place.cat(&store);
        assert!(wait(store.set_disabled(ann(), true)));
        let ann_version = account(&store, "ann").session_version;
        assert_ne!(ann_version, cat.session_version);
        place.swap(&store, (7, "ann"), (9, "cat"));
        drop(account(&store, first));
        let (now_ann, now_cat) = (account(&store, "ann"), account(&store, "cat"));
        assert_eq!((&*now_ann.id, &*now_cat.id), ("9", "7"));
        assert_eq!((now_ann.disabled, now_cat.disabled), (false, true), "{first} first");
        for account in [&now_ann, &now_cat] {
            assert!(account.session_version > ann_version.max(cat.session_version), "{first} first");
            assert!(account.sessions_ended_at > 0);
        }
        assert_eq!(stands(&store, "r"), "revoked");
        assert!(wait(store.token(digest("t"), place.clock.unix())).live().is_none());
        // and back, with one of them not seen meanwhile
        place.swap(&store, (9, "ann"), (7, "cat"));
        let back = account(&store, first);
        assert!(back.session_version > now_ann.session_version.max(now_cat.session_version));
        assert!(account(&store, "ann").disabled && !account(&store, "cat").disabled);
    }
}

fn a_name_that_was_lent_does_not_come_back_with_its_versions(on: &On) {
    let (place, store) = Place::flask(on);
    let cat = place.cat(&store);
    drop(account(&store, "ann"));
    place.swap(&store, (7, "ann"), (9, "cat"));
    // only the one is seen while they have the other's name
    let lent = account(&store, "ann");
    assert_eq!(&*lent.id, "9");
    place.swap(&store, (9, "ann"), (7, "cat"));
    let back = account(&store, "ann");
    assert_eq!(&*back.id, "7");
    assert!(back.session_version > lent.session_version, "{} of {}", back.session_version, lent.session_version);
    assert!(account(&store, "cat").session_version > lent.session_version.max(cat.session_version));
}

fn another_id_under_a_known_name_is_above_what_both_had(on: &On) {
    let (place, store) = Place::flask(on);
    let cat = place.cat(&store);
    for _ in 0..5 {
        assert!(wait(store.set_password(ann(), secret(ANN_HASH))));
    }
    let high = account(&store, "ann").session_version;
    place.api(&store, "DELETE FROM token");
    place.api(&store, "DELETE FROM {user} WHERE id = 7 OR id = 9");
    place.insert(&store, 7, "cat", "new$hash");
    let new = account(&store, "cat");
    assert!(new.session_version > high && high > cat.session_version);
    assert!(new.sessions_ended_at > 0 && !new.disabled);
    place.insert(&store, 9, "ann", "newer$hash");
    assert!(account(&store, "ann").session_version > high);
}

fn a_guess_at_a_renamed_user_leaves_no_trace(on: &On) {
    let (place, store) = Place::flask(on);
    let cat = place.cat(&store);
    let (_, start) = wait(store.changes(None));
    place.rename(&store, 9, "tom");
    let claimed = wait(store.claimed(user("tom")));
    assert!(matches!(claimed, Some(Claimed::Unseen { password_hash }) if password_hash.expose() == CAT_HASH));
    assert!(wait(store.claimed(user("cat"))).is_none());
    assert!(wait(store.changes(Some(start))).0.is_empty());
    assert_eq!(wait(store.proven(user("tom"), secret(CAT_HASH))).unwrap().session_version, cat.session_version);
    assert!(matches!(wait(store.claimed(user("tom"))), Some(Claimed::Account(_))));
}

fn gateways_that_see_another_person_at_once_agree(on: &On) {
    let (place, store) = Place::flask(on);
    let other = place.open_with(&place.location, &flask()).unwrap();
    drop(place.cat(&store));
    for round in 0..10 {
        let before = wait(store.account_by_id("9".into())).unwrap();
        place.api(
            &store,
            &format!("UPDATE {{user}} SET username = 'n{round}', password_hash = 'h${round}' WHERE id = 9"),
        );
        let seen = std::thread::scope(|scope| {
            let looking = [&store, &other, &store, &other]
                .map(|store| scope.spawn(move || wait(store.account_by_id("9".into())).unwrap().session_version));
            looking.map(|look| look.join().unwrap())
        });
        assert_eq!(seen, [before.session_version + 1; 4]);
    }
}

/// Whatever becomes of users, no two of them ever have the same version under one name or under one id.
fn versions_never_come_twice(on: &On) {
    let (place, store) = Place::flask(on);
    place.api(&store, "DELETE FROM token");
    place.api(&store, "DELETE FROM {user}");
    let names = ["a", "b", "c", "d"];
    // of each id its name and who it is
    let mut rows: HashMap<i64, (&str, usize)> = HashMap::new();
    let (mut by_name, mut by_id) = (HashMap::new(), HashMap::new());
    let (mut persons, mut random, mut renewed) = (0, 88_172_645_463_325_252_u64, 0);
    let steps = if on.engine() == Engine::Sqlite { 1_500 } else { 400 };
    for step in 0..steps {
        let mut pick = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 33).unwrap() % below
        };
        let (id, name) = (i64::try_from(pick(4)).unwrap() + 1, names[pick(4)]);
        let holder = rows.iter().find(|(_, (held, _))| *held == name).map(|(id, _)| *id);
        match (pick(7), rows.get(&id).copied(), holder) {
            (0 | 1, None, None) => {
                persons += 1;
                place.insert(&store, id, name, &format!("scrypt${persons}"));
                rows.insert(id, (name, persons));
            }
            (0, Some(_), _) => {
                place.api(&store, &format!("DELETE FROM {{user}} WHERE id = {id}"));
                rows.remove(&id);
            }
            (1 | 2, Some((_, who)), None) => {
                place.rename(&store, id, name);
                rows.insert(id, (name, who));
            }
            (1 | 2, Some((old, who)), Some(holder)) if holder != id => {
                let (_, other) = rows[&holder];
                place.swap(&store, (id, old), (holder, name));
                rows.insert(id, (name, who));
                rows.insert(holder, (old, other));
            }
            (3, Some((name, _)), _) => {
                assert!(wait(store.remove_account(user(name))));
                rows.remove(&id);
            }
            (4, Some((name, _)), _) => {
                renewed += 1;
                assert!(wait(store.set_password(user(name), secret(&format!("renewed${renewed}")))));
            }
            _ => {}
        }
        for id in [id, i64::try_from(pick(4)).unwrap() + 1] {
            let Some((name, who)) = rows.get(&id) else { continue };
            let account = wait(store.account_by_id(id.to_string().into())).unwrap();
            assert_eq!(&*account.subject.name, *name);
            let version = account.session_version;
            assert_eq!(by_name.entry((*name, version)).or_insert(*who), who, "step {step}: {name} {version}");
            assert_eq!(by_id.entry((id, version)).or_insert(*who), who, "step {step}: {id} {version}");
        }
    }
    assert!(persons > 20 && renewed > 20, "{persons} {renewed}");
}

impl Place {
    /// A store as the versions before kept it, by name alone, in which `rows` are kept beside.
    fn of_before(on: &On, rows: &str) -> Self {
        let place = Self::load(
            on,
            [
                include_str!("../../../../../tests/data/tables/flask_sqlite.sql"),
                include_str!("../../../../../tests/data/tables/flask_postgres.sql"),
                include_str!("../../../../../tests/data/tables/flask_mysql.sql"),
            ],
        );
        let schema = "CREATE TABLE portcullis_schema (version BIGINT NOT NULL)";
        let steps = match on.engine() {
            Engine::Sqlite => [
                include_str!("../../../../../migrations/sqlite/0001_start.sql"),
                include_str!("../../../../../migrations/sqlite/0002_users_elsewhere.sql"),
                include_str!("../../../../../migrations/sqlite/0003_audit.sql"),
                include_str!("../../../../../migrations/sqlite/0004_issued_to.sql"),
            ],
            Engine::Postgres => [
                include_str!("../../../../../migrations/postgres/0001_start.sql"),
                include_str!("../../../../../migrations/postgres/0002_users_elsewhere.sql"),
                include_str!("../../../../../migrations/postgres/0003_audit.sql"),
                include_str!("../../../../../migrations/postgres/0004_issued_to.sql"),
            ],
            Engine::MySql => [
                include_str!("../../../../../migrations/mysql/0001_start.sql"),
                include_str!("../../../../../migrations/mysql/0002_users_elsewhere.sql"),
                include_str!("../../../../../migrations/mysql/0003_audit.sql"),
                include_str!("../../../../../migrations/mysql/0004_issued_to.sql"),
            ],
        };
        let user = on.engine().quoted("user");
        place.background.block_on(async {
            let pool = match &place.location {
                Location::Sqlite(path) => open::file(path).unwrap(),
                Location::Server(url) => open::server(url).unwrap(),
            };
            let mut tx = pool.begin().await.unwrap();
            for step in steps {
                tx.db().script(step).await.unwrap();
            }
            let users = format!("INSERT INTO {user} (id, username, password_hash, role) VALUES {USERS_OF_BEFORE}");
            let rows = format!("INSERT INTO portcullis_user_state VALUES {rows}");
            for statement in [schema, "INSERT INTO portcullis_schema VALUES (4)", &users, &rows, TOMBSTONES_OF_BEFORE] {
                query(statement.to_owned()).execute(tx.db()).await.unwrap();
            }
            tx.commit().await.unwrap();
            pool.close().await;
        });
        place
    }
}

const USERS_OF_BEFORE: &str = "(7, 'ann', 'of$ann', 'r'), (8, 'rob', 'of$bob', 'r'), (9, 'eve', 'of$eve', 'r'), \
                               (10, 'new', 'of$new', 'r'), (11, 'known', 'of$known', 'r')";
const TOMBSTONES_OF_BEFORE: &str = "INSERT INTO portcullis_tombstones VALUES ('user', 'dan', 4, 1000), \
                                    ('user', 'fay', 2, 2000), ('client', 'app', 50, 5000)";

fn a_store_of_before_is_brought_up_to_date(on: &On) {
    let mark = |hash: &str| {
        let hex = beside::mark(hash).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        if on.engine() == Engine::Postgres { format!("'\\x{hex}'") } else { format!("x'{hex}'") }
    };
    let truth = |value: bool| match (on.engine(), value) {
        (Engine::Postgres, true) => "TRUE",
        (Engine::Postgres, false) => "FALSE",
        (_, true) => "1",
        (_, false) => "0",
    };
    let (no, yes) = (truth(false), truth(true));
    let rows = [
        format!("('ann', '7', {}, 3, 30, {no})", mark("of$ann")),
        // renamed behind our back: bob was disabled, and rob seen as somebody new
        format!("('bob', '8', {}, 2, 20, {yes})", mark("of$bob")),
        format!("('rob', '8', {}, 1, 0, {no})", mark("of$bob")),
        // an id given again, seen and then not changed
        format!("('cat', '9', {}, 1, 0, {no})", mark("of$cat")),
        format!("('cat2', '9', {}, 6, 0, {no})", mark("of$cat2")),
        format!("('eve', '9', {}, 1, 0, {no})", mark("of$eve")),
        format!("('known', '11', {}, 1, 0, {no})", mark("of$known")),
    ];
    let place = Place::of_before(on, &rows.join(", "));
    // by two at once
    let [store, other] = std::thread::scope(|scope| {
        [0, 1]
            .map(|_| scope.spawn(|| place.open_with(&place.location, &flask()).unwrap()))
            .map(|opening| opening.join().unwrap())
    });
    drop(other);
    let now = place.clock.unix();
    for (name, version, ended_at) in [("ann", 3, 30), ("known", 1, 0)] {
        let as_before = account(&store, name);
        assert_eq!((as_before.session_version, as_before.sessions_ended_at), (version, ended_at), "{name}");
    }
    let rob = account(&store, "rob");
    assert!(rob.disabled && rob.session_version > 2 && rob.sessions_ended_at > now - 60);
    let eve = account(&store, "eve");
    assert!(!eve.disabled && eve.session_version > 6 && eve.sessions_ended_at > now - 60);
    for (name, version) in [("bob", 2), ("cat", 1), ("cat2", 6), ("dan", 4), ("fay", 2)] {
        let left = wait(store.jwt_standing(user(name), vec![])).removed.unwrap();
        assert!(left.session_version >= version, "{name}: {left:?}");
    }
    // nobody knows any more which ids the removed ones had
    let new = account(&store, "new");
    assert_eq!((new.session_version, new.sessions_ended_at), (5, 2000));
    assert_eq!(states(&place, &store), 5);
    let unchanged = account(&store, "ann");
    assert_eq!(unchanged.password_hash.expose(), "of$ann");
}

on_each_engine! {
    an_id_that_the_application_gives_again_is_another_person,
    an_id_that_is_given_again_after_a_removal_is_another_person,
    a_user_added_in_place_of_a_removed_one_is_another_person,
    a_renamed_user_is_the_same_person,
    a_rename_that_comes_with_another_hash_is_another_person,
    a_hash_that_others_may_have_tells_nobody,
    users_who_swap_their_names_stay_who_they_are,
    a_name_that_was_lent_does_not_come_back_with_its_versions,
    another_id_under_a_known_name_is_above_what_both_had,
    a_guess_at_a_renamed_user_leaves_no_trace,
    gateways_that_see_another_person_at_once_agree,
    versions_never_come_twice,
    a_store_of_before_is_brought_up_to_date,
}
