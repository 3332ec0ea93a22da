//! What a gateway does while nobody answers, and what budgets are called; the rest is tested on a real Redis.

use std::num::NonZeroU32;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::*;

/// No more than the machine may add.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers as Redis does until it has granted once, then says nothing. Tells the address, and of its end.
async fn falls_silent() -> (String, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, end) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut heard, mut bytes, mut said) = (String::new(), [0; 4096], 0);
        // to SELECT, SCRIPT LOAD twice, and the draw that tries it out
        let answers = ["+OK\r\n", "$1\r\na\r\n", "$1\r\nb\r\n", "*4\r\n:0\r\n:0\r\n:0\r\n:0\r\n"];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
            let asked = ["SELECT", "LOAD", "EVALSHA"].map(|word| heard.matches(word).count()).iter().sum();
            while said < asked && said < answers.len() {
                stream.write_all(answers[said].as_bytes()).await.unwrap();
                said += 1;
            }
        }
        ended.send(()).unwrap();
    });
    (format!("redis://{address}/1"), end)
}

fn quota(count: u32, per: Duration, burst: u32) -> Quota {
    Quota { count: NonZeroU32::new(count).unwrap(), per, burst: NonZeroU32::new(burst).unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_waits_a_bounded_time_and_so_many_at_most() {
    let (url, end) = falls_silent().await;
    let settings = Settings { address: Arc::new(Address::parse(&url, None).unwrap()), tls: None, content: None };
    let metrics = Arc::new(Metrics::new());
    let shared = Shared::start(settings, Arc::clone(&metrics), &Handle::current());
    shared.tried().await;
    let budgets = [(Name::of(&[b"a"]), Cost::of(&quota(1, Duration::from_secs(1), 1)))];
    let draw = || shared.draw(Purpose::Request, &budgets);
    let begin = Instant::now();
    let mut waiting: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| Box::pin(draw())).collect();
    assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()), "all that may are under way");
    assert_eq!(draw().now_or_never(), Some(Answer::Unknown), "the next does not wait");
    assert!(join_all(waiting).await.into_iter().all(|answer| answer == Answer::Unknown));
    let took = begin.elapsed();
    assert!(took >= ANSWER_MAX && took < PATIENCE, "{took:?}");
    assert_eq!(draw().now_or_never(), Some(Answer::Unknown), "and after that nobody does");
    assert_eq!(metrics.limits_shared.with_label_values(&["own"]).get(), IN_FLIGHT_MAX as u64 + 2);
    timeout(PATIENCE, end).await.unwrap().unwrap();
}

#[test]
fn what_a_draw_costs_has_bounds() {
    let (second, forever) = (Duration::from_secs(1), Duration::MAX);
    for (name, quota, each_us, whole_us) in [
        ("ten a second", quota(10, second, 5), 100_000.0, 500_000.0),
        ("more than a microsecond has", quota(u32::MAX, Duration::from_nanos(1), 1), 0.001, 0.001),
        ("hardly ever", quota(1, forever, 1_000_000), WHOLE_US_MAX, WHOLE_US_MAX),
        ("as good as endless", quota(1, Duration::from_hours(24 * 365), 1_000_000), 31_536_000e6, WHOLE_US_MAX),
    ] {
        assert_eq!(Cost::of(&quota), Cost { each_us, whole_us }, "{name}");
    }
}

#[test]
fn no_name_is_made_of_other_parts() {
    let names = [
        Name::of(&[]),
        Name::of(&[b""]),
        Name::of(&[b"", b""]),
        Name::of(&[b"ab"]),
        Name::of(&[b"a", b"b"]),
        Name::of(&[b"", b"ab"]),
        Name::of(&[b"ab", b""]),
    ];
    for (at, name) in names.iter().enumerate() {
        assert_eq!(names.iter().position(|other| other == name), Some(at));
        assert_eq!(name.0.len(), KEY_PREFIX.len() + 22);
    }
    // other gateways know it too
    assert_eq!(&*Name::of(&[b"a"]).0, "portcullis:{limits}:Oxlv1JB77fUcMJDpg18vfA");
}
