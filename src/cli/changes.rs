//! Hears of what other processes on the same store change, and makes what depends on it invalid.
//!
//! Since this asks the store all the time, it is also what knows whether the store answers.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::authenticate::keys::{Keys, KeysError};
use crate::record::audit::Audit;
use crate::store::changes::Changes;
use crate::store::sql::SqlStore;
use crate::store::{Change, Store};

/// How often other processes' changes are looked for; they must hold within a second (contract 6).
const CHANGES_EVERY: Duration = Duration::from_millis(200);
/// How often what commands have left for the audit log is looked for.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// A store that says nothing for longer does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Where hearing begins. To be asked before anybody is served: what was looked up before it is invalid, and logins that are
/// forgotten while they are in use would be tried again, at the cost of whoever has spent their budget.
///
/// # Errors
/// The store does not answer, or a key cannot be used.
pub(super) async fn begin(store: &dyn Store, changes: &Changes, keys: &Keys) -> Result<i64, KeysError> {
    heard(store, changes, keys, None).await
}

/// Hears for ever what comes after `position`. `store_answers` is what the last question found.
pub(super) async fn hear(
    store: &dyn Store,
    changes: &Changes,
    keys: &Keys,
    store_answers: &AtomicBool,
    mut position: i64,
) {
    let mut tick = interval(CHANGES_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        match noted(heard(store, changes, keys, Some(position)), store_answers).await {
            Ok(now) => (position, failing) = (now, false),
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "changes of other processes are not heard");
                }
            }
        }
    }
}

/// Tells for ever what commands have done.
pub(super) async fn tell(store: &SqlStore, audit: &Audit) {
    let mut tick = interval(TOLD_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match store.take_entries().await {
            Ok(entries) => entries.iter().for_each(|entry| audit.pass_on(entry)),
            // they stay where they are
            Err(error) => tracing::debug!(%error, "what commands have done is not told yet"),
        }
    }
}

/// The answer; whether the store gave one is noted, also while it is waited for.
async fn noted<T>(
    answer: impl Future<Output = Result<T, KeysError>>,
    store_answers: &AtomicBool,
) -> Result<T, KeysError> {
    let mut answer = pin!(answer);
    let answer = if let Ok(answer) = timeout(SILENCE_MAX, &mut answer).await {
        answer
    } else {
        store_answers.store(false, Ordering::Relaxed);
        answer.await
    };
    // a key that cannot be used is an answer
    store_answers.store(!matches!(answer, Err(KeysError::Store(_))), Ordering::Relaxed);
    answer
}

/// Notes the changes after `position`; returns the new one. Keys are read before the change is noted, see
/// [`Keys::reload`]; where that fails, the same changes are heard again.
async fn heard(store: &dyn Store, changes: &Changes, keys: &Keys, position: Option<i64>) -> Result<i64, KeysError> {
    let (list, now) = store.changes(position).await?;
    // what changed while nobody listened is not known
    let everything = position.is_none();
    if everything || list.iter().any(|change| matches!(change, Change::Keys | Change::All)) {
        keys.reload().await?;
    }
    if everything {
        changes.note_all();
    }
    for change in &list {
        changes.note(change);
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authenticate::keys;
    use crate::authenticate::keys::KeyError;
    use crate::clock::Clock;
    use crate::config::snapshot::StoreLocation;
    use crate::store::StoreError;
    use crate::store::tables::Tables;

    fn open(directory: &std::path::Path) -> Arc<SqlStore> {
        let (file, clock) = (StoreLocation::Sqlite(directory.join("store.db")), Clock::system());
        let background = tokio::runtime::Handle::current();
        let opening =
            std::thread::spawn(move || SqlStore::open(&file, &Tables::default(), background, clock, |_, _| {}));
        Arc::new(opening.join().unwrap().unwrap())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keys_that_changed_before_the_first_hearing_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let (store, clock) = (open(directory.path()), Clock::system());
        let keys = Keys::load(Arc::clone(&store) as Arc<dyn Store>, clock.clone()).await.unwrap();
        let before = format!("{keys:?}");
        store.rotate_key(keys::generate(clock.unix()).unwrap(), clock.unix() + 3_600).await.unwrap();
        let changes = Changes::default();
        let generation = changes.generation();
        let position = begin(&*store, &changes, &keys).await.unwrap();
        assert_ne!(format!("{keys:?}"), before);
        assert!(!changes.unchanged(generation, &[]), "whatever was looked up before is invalid");
        let generation = changes.generation();
        assert_eq!(heard(&*store, &changes, &keys, Some(position)).await.unwrap(), position);
        assert_eq!(changes.generation(), generation, "nothing changed since");
    }

    #[tokio::test]
    async fn whether_the_store_answers_is_known() {
        let answers = AtomicBool::new(true);
        let down = || Err::<(), _>(KeysError::Store(StoreError::Unavailable("stopped".into())));
        for (name, answer, expected) in [
            ("down", down(), false),
            ("an answer", Ok(()), true),
            ("down again", down(), false),
            ("a key that cannot be used", Err(KeysError::Key(KeyError::SigningFailed)), true),
        ] {
            drop(noted(std::future::ready(answer), &answers).await);
            assert_eq!(answers.load(Ordering::Relaxed), expected, "{name}");
        }
        let silent = noted(std::future::pending::<Result<(), _>>(), &answers);
        assert!(timeout(SILENCE_MAX + Duration::from_millis(100), silent).await.is_err());
        assert!(!answers.load(Ordering::Relaxed), "silence is no answer");
    }
}
