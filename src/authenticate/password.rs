//! Password hashes, and the bounded pool that makes and verifies them off the request threads.
//!
//! The pool has its own threads, since one verification takes tens of milliseconds of a core. Its queue is bounded: a
//! flood of logins is told to come back instead of making everybody wait. What nobody waits for any more is skipped.

mod formats;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

pub use formats::{HashError, PASSWORD_BYTES_MAX, hash, is_ours, verify};

use crate::secret::Secret;
use crate::store::sql::recipe;

/// Jobs that wait for a thread; further ones are refused.
pub const WAITING_MAX: usize = 64;

/// The pool takes no more jobs now, or lost this one; the caller is asked to come back (contract 5: 503).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password queue is full")]
pub struct QueueFull;

/// Threads that hash and verify passwords. Dropping it ends them once they have finished what they are at.
#[derive(Debug)]
pub struct PasswordPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    /// What a password of nobody is verified against.
    dummy: Mutex<Arc<Secret<String>>>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Debug)]
enum Job {
    Verify { hash: Secret<String>, dummy: Arc<Secret<String>>, password: Secret<String>, answer: oneshot::Sender<bool> },
    VerifyNobody { hash: Arc<Secret<String>>, password: Secret<String>, answer: oneshot::Sender<bool> },
    Hash { password: Secret<String>, answer: oneshot::Sender<Result<Secret<String>, HashError>> },
}

impl PasswordPool {
    /// As many threads as leave half of the cores to requests.
    pub fn default_threads() -> usize {
        thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
    }

    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(threads: usize) -> io::Result<Self> {
        let dummy = Mutex::new(Arc::new(Secret::new(formats::DUMMY.to_owned())));
        let pool = Self { shared: Arc::new(Shared { queue: Mutex::default(), work: Condvar::new(), dummy }) };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name(format!("password-{number}")).spawn(move || work(&shared))?;
        }
        Ok(pool)
    }

    /// Whether `password` is the one that `hash` was made of. The job is queued by this call; the future may be awaited
    /// on any runtime, and dropping it gives the job up.
    pub fn verify(
        &self,
        hash: Secret<String>,
        password: Secret<String>,
    ) -> impl Future<Output = Result<bool, QueueFull>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        let dummy = self.dummy();
        outcome(self.push(Job::Verify { hash, dummy, password, answer }), answered)
    }

    /// False, after as much work as [`Self::verify`] does for a hash that was made here; so that nobody can tell by the
    /// time whether a name is known.
    pub fn verify_nobody(
        &self,
        password: Secret<String>,
    ) -> impl Future<Output = Result<bool, QueueFull>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        let hash = self.dummy();
        outcome(self.push(Job::VerifyNobody { hash, password, answer }), answered)
    }

    /// A new hash of `password`.
    pub fn hash(
        &self,
        password: Secret<String>,
    ) -> impl Future<Output = Result<Result<Secret<String>, HashError>, QueueFull>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        outcome(self.push(Job::Hash { password, answer }), answered)
    }

    /// Verifies the passwords of nobody against `hash` from now on: one as costly as those of the table in use.
    pub fn set_dummy(&self, hash: Secret<String>) {
        *self.shared.dummy.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(hash);
    }

    fn dummy(&self) -> Arc<Secret<String>> {
        Arc::clone(&self.shared.dummy.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many jobs wait for a thread.
    pub fn waiting(&self) -> usize {
        self.shared.queue().jobs.len()
    }

    fn push(&self, job: Job) -> Result<(), QueueFull> {
        let mut queue = self.shared.queue();
        if queue.jobs.len() >= WAITING_MAX {
            queue.jobs.retain(|job| !job.is_given_up());
        }
        if queue.jobs.len() >= WAITING_MAX {
            return Err(QueueFull);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.work.notify_one();
        Ok(())
    }
}

impl Drop for PasswordPool {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, waiting for one; `None` once the pool is gone.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Job {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Verify { answer, .. } | Self::VerifyNobody { answer, .. } => answer.is_closed(),
            Self::Hash { answer, .. } => answer.is_closed(),
        }
    }

    /// Does it and answers; where nobody listens any more, that is all right.
    fn carry_out(self) {
        match self {
            Self::Verify { hash, dummy, password, answer } => {
                let verdict = formats::verdict(hash.expose(), password.expose());
                if is_told_by_time(verdict, hash.expose(), dummy.expose()) {
                    std::hint::black_box(verify(dummy.expose(), password.expose()));
                }
                answer.send(verdict.unwrap_or(false)).ok();
            }
            Self::VerifyNobody { hash, password, answer } => {
                std::hint::black_box(verify(hash.expose(), password.expose()));
                answer.send(false).ok();
            }
            Self::Hash { password, answer } => {
                answer.send(hash(password.expose())).ok();
            }
        }
    }
}

/// Whether a refusal took another time than that of an unknown name, which costs what `dummy` costs: because the hash is
/// of another make, such as the cheap ones of imported accounts, or because it cannot be verified, as of a user without
/// a password. The dummy is verified on top then: a name that answers sooner would be known to exist.
fn is_told_by_time(verdict: Option<bool>, hash: &str, dummy: &str) -> bool {
    match verdict {
        Some(true) => false,
        Some(false) => recipe(hash) != recipe(dummy),
        None => true,
    }
}

fn work(shared: &Shared) {
    while let Some(job) = shared.next() {
        if !job.is_given_up() {
            // a panic drops the sender, which its caller sees; the thread lives on
            catch_unwind(AssertUnwindSafe(|| job.carry_out())).ok();
        }
    }
}

async fn outcome<T>(queued: Result<(), QueueFull>, answered: oneshot::Receiver<T>) -> Result<T, QueueFull> {
    queued?;
    answered.await.map_err(|_| QueueFull)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    /// `{SHA}` of `abc`, which costs next to nothing.
    const CHEAP: &str = "{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
    /// Some tens of milliseconds, whatever the password.
    const COSTLY: &str = "pbkdf2_sha256$300000$salt$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn the_pool_answers_as_the_formats_do() {
        let pool = PasswordPool::start(1).unwrap();
        assert_eq!(wait(pool.verify(secret(CHEAP), secret("abc"))), Ok(true));
        assert_eq!(wait(pool.verify(secret(CHEAP), secret("abd"))), Ok(false));
        let made = wait(pool.hash(secret("abc"))).unwrap().unwrap();
        assert_eq!(wait(pool.verify(made, secret("abc"))), Ok(true));
        assert!(matches!(wait(pool.hash(secret("a\0"))), Ok(Err(HashError::Unusable))));
    }

    #[test]
    fn a_wrong_password_costs_no_less_than_an_unknown_name() {
        let ours = formats::DUMMY;
        let apr1 = "$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00";
        for (name, verdict, hash, dummy, expected) in [
            ("a right password", Some(true), CHEAP, ours, false),
            ("one of ours", Some(false), ours, ours, false),
            ("a cheap hash", Some(false), CHEAP, ours, true),
            ("another cheap hash", Some(false), apr1, ours, true),
            ("a foreign table's own kind", Some(false), COSTLY, COSTLY, false),
            ("one of ours in a foreign table", Some(false), ours, COSTLY, true),
            ("a cheaper one of the same kind", Some(false), "pbkdf2_sha256$1$salt$AAAA", COSTLY, true),
            ("no password at all", None, "!", ours, true),
        ] {
            assert_eq!(is_told_by_time(verdict, hash, dummy), expected, "{name}");
        }
        let pool = PasswordPool::start(1).unwrap();
        pool.set_dummy(secret(COSTLY));
        let took = |answer: &mut dyn FnMut() -> Result<bool, QueueFull>| {
            let clock = crate::clock::Clock::system();
            let times = (0..3).map(|_| {
                let before = clock.now();
                assert_eq!(answer(), Ok(false));
                clock.now() - before
            });
            times.min().unwrap()
        };
        let unknown = took(&mut || wait(pool.verify_nobody(secret("guess"))));
        let wrong = took(&mut || wait(pool.verify(secret(CHEAP), secret("guess"))));
        assert!(wrong * 2 > unknown, "{wrong:?} for a wrong password, {unknown:?} for an unknown name");
    }

    #[test]
    fn nobody_never_matches() {
        let pool = PasswordPool::start(1).unwrap();
        assert_eq!(wait(pool.verify_nobody(secret(""))), Ok(false));
        pool.set_dummy(secret(CHEAP));
        assert_eq!(wait(pool.verify_nobody(secret("abc"))), Ok(false), "not even with the dummy's own password");
    }

    #[test]
    fn the_queue_has_an_end_and_gives_room_for_what_was_given_up() {
        let pool = PasswordPool::start(1).unwrap();
        let mut kept: Vec<_> = (0..WAITING_MAX).map(|_| pool.verify(secret(COSTLY), secret("x"))).collect();
        // the thread takes one or none meanwhile, so that of two more one at least is refused
        let refused = [pool.verify(secret(CHEAP), secret("abc")), pool.verify(secret(CHEAP), secret("abc"))];
        let refused = refused.into_iter().map(|future| {
            let mut future = Box::pin(future);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            future.as_mut().poll(&mut context) == std::task::Poll::Ready(Err(QueueFull))
        });
        assert!(refused.filter(|&refused| refused).count() >= 1);
        assert!(pool.waiting() >= WAITING_MAX - 1 && pool.waiting() <= WAITING_MAX);
        kept.clear();
        assert_eq!(wait(pool.verify(secret(CHEAP), secret("abc"))), Ok(true), "and the given up are skipped");
        assert_eq!(pool.waiting(), 0);
    }

    #[test]
    fn a_pool_that_is_gone_leaves_nobody_waiting() {
        let pool = PasswordPool::start(1).unwrap();
        let waiting: Vec<_> = (0..8).map(|_| pool.verify(secret(COSTLY), secret("x"))).collect();
        drop(pool);
        let last = waiting.into_iter().last().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), last).await });
        assert_eq!(answer.unwrap(), Err(QueueFull));
    }
}
