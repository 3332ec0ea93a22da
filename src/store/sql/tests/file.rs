//! What can happen to an `SQLite` file alone: its rights, another process that holds it, a disk that is full.

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn the_file_is_for_its_owner_only() {
    let place = Place::new(&On::File);
    let store = place.open();
    drop(add_ann(&store));
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let mode = std::fs::metadata(place.directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn the_last_to_close_leaves_one_complete_file() {
    let place = Place::new(&On::File);
    let (store, other) = (place.open(), place.open());
    drop(add_ann(&store));
    let beside = place.directory.path().join("store.db-wal");
    wait(store.close());
    assert!(beside.exists());
    wait(other.close());
    assert!(!beside.exists());
    assert!(matches!(Place::wait(store.account(ann())), Err(StoreError::Unavailable(_))));
    assert!(wait(place.open().account(ann())).is_some());
}

#[test]
fn a_locked_file_is_unavailable_in_time_and_good_again_after() {
    let place = Place::new(&On::File);
    let (store, other) = (place.open(), place.open());
    drop(add_ann(&store));
    let held = place.background.block_on(other.inner.pool.begin()).unwrap();
    let started = place.clock.now();
    let (one, two) = (store.set_roles(ann(), vec![]), store.set_roles(ann(), vec![]));
    for answer in [one, two] {
        assert!(matches!(Place::wait(answer), Err(StoreError::Unavailable(_))));
    }
    assert!(place.clock.now() - started < DEADLINE + Duration::from_secs(1));
    assert!(wait(store.account(ann())).is_some(), "reading goes on");
    wait(store.ping());
    place.background.block_on(async move { drop(held) });
    // the connection may still be busy with what was given up
    let deadline = place.clock.now() + Duration::from_secs(10);
    while Place::wait(store.set_roles(ann(), vec!["again".into()])).is_err() {
        assert!(place.clock.now() < deadline, "still locked");
    }
    assert_eq!(&*wait(store.account(ann())).unwrap().roles, &[Role::from("again")][..]);
}

#[test]
fn a_full_disk_is_unavailable_and_harms_nothing() {
    let place = Place::new(&On::File);
    let store = place.open();
    drop(add_ann(&store));
    // the connection that is given up afterwards takes its limit along
    let Pool::Sqlite { writer, .. } = &store.inner.pool else { panic!("another engine") };
    place.background.block_on(sqlx::query("PRAGMA max_page_count = 1").execute(writer)).unwrap();
    let large = vec![Role::from("r".repeat(200_000))];
    assert!(
        matches!(Place::wait(store.set_roles(ann(), large.clone())), Err(StoreError::Unavailable(why)) if why.contains("full"))
    );
    assert_eq!(&*wait(store.account(ann())).unwrap().roles, &[Role::from("user")][..]);
    assert!(wait(store.set_roles(ann(), large)));
}

#[test]
fn a_file_that_is_no_store_is_named_as_such() {
    let place = Place::new(&On::File);
    let garbage = place.directory.path().join("garbage");
    std::fs::write(&garbage, b"this is not a database, and long enough to be looked at. ".repeat(50)).unwrap();
    let newer = place.directory.path().join("newer");
    let store = place.open_at(&Location::Sqlite(newer.clone())).unwrap();
    place.execute(&store, "UPDATE portcullis_schema SET version = 99");
    drop(store);
    for (name, path, expected) in [
        ("another format", garbage.clone(), "no SQLite database"),
        ("a newer version", newer, "version 99"),
        ("no such directory", place.directory.path().join("none/store.db"), "cannot open"),
        ("a directory", place.directory.path().to_owned(), "cannot open"),
    ] {
        match place.open_at(&Location::Sqlite(path)) {
            Err(StoreError::Broken(why)) => assert!(why.contains(expected) && !why.contains('\n'), "{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(std::fs::read(&garbage).unwrap().starts_with(b"this is not"), "it is left as it was");
}

#[test]
fn a_read_only_file_is_refused_at_the_start() {
    let place = Place::new(&On::File);
    drop(place.open());
    std::fs::set_permissions(place.file(), PermissionsExt::from_mode(0o400)).unwrap();
    // root may write whatever the mode says
    let writable = OpenOptions::new().write(true).open(place.file()).is_ok();
    assert_eq!(place.open_at(&place.location).is_ok(), writable);
}
