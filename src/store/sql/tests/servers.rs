//! What can happen between us and a server: it stops answering, it goes and comes back, another holds the lock.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// Stands before a server; can hold back all that is said, and end every connection.
struct Wire {
    url: String,
    held: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Wire {
    fn before(place: &Place) -> Self {
        let On::Server(_, url) = &place.on else { panic!("no server") };
        let (before, address) = url.rsplit_once('@').unwrap();
        let target = address.split('/').next().unwrap().to_owned();
        let listener = place.background.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("{before}@{}/{}", listener.local_addr().unwrap(), place.name);
        let (held, connections) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let wire = Self { url, held: Arc::clone(&held), connections: Arc::clone(&connections) };
        place.background.spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let held = Arc::clone(&held);
                let both = tokio::spawn(async move {
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        () = copy(from_client, to_server, &held) => {}
                        () = copy(from_server, to_client, &held) => {}
                    }
                });
                connections.lock().unwrap().push(both);
            }
        });
        wire
    }

    fn location(&self) -> Location {
        Location::Server(ServerUrl::parse(&self.url).unwrap().unwrap())
    }

    fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

async fn copy(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, held: &AtomicBool) {
    let mut bytes = vec![0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        while held.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

fn a_server_that_does_not_answer_is_unavailable_in_time_and_good_again_after(on: &On) {
    let place = Place::new(on);
    let wire = Wire::before(&place);
    let store = place.open_at(&wire.location()).unwrap();
    drop(add_ann(&store));
    wire.hold(true);
    let started = place.clock.now();
    let answers: Vec<_> = (0..20).map(|_| store.account(ann())).collect();
    let change = store.set_roles(ann(), vec!["lost".into()]);
    for answer in answers {
        assert!(matches!(Place::wait(answer), Err(StoreError::Unavailable(_))));
    }
    assert!(matches!(Place::wait(change), Err(StoreError::Unavailable(_))));
    assert!(place.clock.now() - started < DEADLINE * 2, "each within its deadline");
    wire.hold(false);
    let back = place.clock.now();
    while Place::wait(store.account(ann())).is_err() {
        assert!(place.clock.now() - back < Duration::from_secs(10), "it does not recover");
    }
    assert!(wait(store.set_roles(ann(), vec!["again".into()])));
}

fn a_server_that_was_started_anew_is_used_without_an_error_once_it_was_idle(on: &On) {
    let place = Place::new(on);
    let wire = Wire::before(&place);
    let store = place.open_at(&wire.location()).unwrap();
    drop(add_ann(&store));
    wire.cut();
    let idle = open::TRUSTED_FOR + Duration::from_millis(100);
    place.background.block_on(async move { tokio::time::sleep(idle).await });
    for _ in 0..20 {
        assert!(wait(store.account(ann())).is_some());
    }
    assert!(wait(store.set_roles(ann(), vec![])));
}

fn a_lock_that_another_holds_is_unavailable_in_time(on: &On) {
    let place = Place::new(on);
    let (store, other) = (place.open(), place.open());
    drop(add_ann(&store));
    let held = place.background.block_on(other.inner.begin()).unwrap();
    let started = place.clock.now();
    assert!(matches!(Place::wait(store.set_roles(ann(), vec![])), Err(StoreError::Unavailable(_))));
    assert!(place.clock.now() - started < DEADLINE + Duration::from_secs(1));
    let account = wait(store.account(ann())).unwrap();
    wait(store.issue(Some(token("t", &account, i64::MAX)), None));
    place.background.block_on(async move { drop(held) });
    assert!(wait(store.set_roles(ann(), vec!["again".into()])));
}

fn changes_of_many_are_heard_each_once_and_in_order(on: &On) {
    let place = Place::new(on);
    let stores: Vec<_> = (0..3).map(|_| place.open()).collect();
    let (_, start) = wait(stores[0].changes(None));
    let listener = &stores[0];
    let mut heard = Vec::new();
    std::thread::scope(|scope| {
        for (number, store) in stores.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..20 {
                    wait(store.revoke_jwt(format!("{number}-{round}").into(), 9));
                    // one that comes to nothing takes no number
                    assert!(!wait(store.set_roles(ann(), vec![])));
                }
            });
        }
        let mut position = start;
        let deadline = place.clock.now() + Duration::from_secs(30);
        while heard.len() < 60 && place.clock.now() < deadline {
            let (more, now) = wait(listener.changes(Some(position)));
            position = now;
            heard.extend(more);
        }
    });
    assert!(!heard.contains(&Change::All), "no number is missing");
    for number in 0..3 {
        let of_one: Vec<_> = heard
            .iter()
            .filter_map(|change| match change {
                Change::Session(id) if id.starts_with(&format!("{number}-")) => Some(id.to_string()),
                Change::Session(_) | Change::Subject(_) | Change::Token(_) | Change::Keys | Change::All => None,
            })
            .collect();
        assert_eq!(of_one, (0..20).map(|round| format!("{number}-{round}")).collect::<Vec<_>>());
    }
}

on_each_engine! {
    changes_of_many_are_heard_each_once_and_in_order,
}

macro_rules! on_each_server {
    ($($test:ident,)*) => {
        mod postgres_alone {
            $(#[test]
            fn $test() {
                if let Some(on) = super::On::postgres() {
                    super::$test(&on);
                }
            })*
        }
        mod mysql_alone {
            $(#[test]
            fn $test() {
                if let Some(on) = super::On::mysql() {
                    super::$test(&on);
                }
            })*
        }
    };
}

on_each_server! {
    a_server_that_does_not_answer_is_unavailable_in_time_and_good_again_after,
    a_server_that_was_started_anew_is_used_without_an_error_once_it_was_idle,
    a_lock_that_another_holds_is_unavailable_in_time,
}
