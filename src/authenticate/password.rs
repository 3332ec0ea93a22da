//! Password hashes, and the bounded pool that makes and verifies them off the request threads.
//!
//! The pool has its own threads, since one verification takes tens of milliseconds of a core. Its queue is bounded: a
//! flood of logins is told to come back instead of making everybody wait. What nobody waits for any more is skipped.

mod decoys;
mod formats;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use tokio::sync::oneshot;

pub use formats::{Bounds, HashError, PASSWORD_BYTES_MAX, hash, is_ours, verify};

use self::decoys::Decoys;
use crate::principal::Subject;
use crate::record::told::Told;
use crate::secret::Secret;

/// Jobs that wait for a thread; further ones are refused. As many as a burst of log-ins that people make at once; at
/// some 40 a second and thread the last has waited for a few seconds, as long as people do.
pub const WAITING_MAX: usize = 256;

tokio::task_local! {
    /// The caller whom a task works for, while there is one. What such a task has queued is given up once the caller is gone;
    /// what has begun is finished, since whoever goes away in time would have guessed for nothing. By the task, so that
    /// nobody on the way to the pool has to hand it on.
    pub static CALLER: Weak<()>;
}

/// How much the threads of the pool give way to others, of at most 19.
const NICENESS: i32 = 10;

/// The pool takes no more jobs now, or lost this one; the caller is asked to come back (contract 5: 503).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password queue is full")]
pub struct QueueFull;

/// Threads that hash and verify passwords. Dropping it ends them once they have finished what they are at.
pub struct PasswordPool {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    /// What passwords of nobody are verified against.
    decoys: Mutex<Decoys>,
    /// Of whom the log has said that their hash cannot be verified.
    told: Told,
}

impl fmt::Debug for PasswordPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordPool").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Queued>,
    closed: bool,
}

/// A job, and whoever waits for what it is for, if that can be said.
#[derive(Debug)]
struct Queued {
    job: Job,
    caller: Option<Weak<()>>,
}

#[derive(Debug)]
enum Job {
    Verify {
        subject: Subject,
        hash: Secret<String>,
        /// Whether another name may be refused after as long.
        common: bool,
        decoy: Arc<Secret<String>>,
        password: Secret<String>,
        answer: oneshot::Sender<bool>,
    },
    VerifyNobody {
        hash: Arc<Secret<String>>,
        password: Secret<String>,
        answer: oneshot::Sender<bool>,
    },
    Hash {
        password: Secret<String>,
        answer: oneshot::Sender<Result<Secret<String>, HashError>>,
    },
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
        let decoys = Mutex::new(Decoys::of(Vec::new()));
        let pool = Self {
            shared: Arc::new(Shared { queue: Mutex::default(), work: Condvar::new(), decoys, told: Told::default() }),
        };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name(format!("password-{number}")).spawn(move || work(&shared))?;
        }
        Ok(pool)
    }

    /// Whether `password` is the one that the `hash` of `subject` was made of. The job is queued by this call; the future
    /// may be awaited on any runtime, and dropping it gives the job up.
    pub fn verify(
        &self,
        subject: &Subject,
        hash: Secret<String>,
        password: Secret<String>,
    ) -> impl Future<Output = Result<bool, QueueFull>> + Send + 'static + use<> {
        let (answer, answered) = oneshot::channel();
        let decoys = self.shared.decoys();
        let (common, decoy) = (decoys.know(subject, hash.expose()), decoys.of_nobody(subject));
        drop(decoys);
        outcome(self.push(Job::Verify { subject: subject.clone(), hash, common, decoy, password, answer }), answered)
    }

    /// False, after as much work as [`Self::verify`] might do for a user of this name; so that nobody can tell by the time
    /// whether it is known.
    pub fn verify_nobody(
        &self,
        subject: &Subject,
        password: Secret<String>,
    ) -> impl Future<Output = Result<bool, QueueFull>> + Send + 'static + use<> {
        let (answer, answered) = oneshot::channel();
        let hash = self.shared.decoys().of_nobody(subject);
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

    /// Takes the hashes that users have, in an order that stays: the passwords of nobody are verified against such from now
    /// on.
    pub fn resemble(&self, hashes: Vec<Secret<String>>) {
        *self.shared.decoys() = Decoys::of(hashes);
    }

    /// How many jobs wait for a thread.
    pub fn waiting(&self) -> usize {
        self.shared.queue().jobs.len()
    }

    fn push(&self, job: Job) -> Result<(), QueueFull> {
        let queued = Queued { job, caller: CALLER.try_with(Weak::clone).ok() };
        let mut queue = self.shared.queue();
        if queue.jobs.len() >= WAITING_MAX {
            queue.jobs.retain(|queued| !queued.is_given_up());
        }
        if queue.jobs.len() >= WAITING_MAX {
            return Err(QueueFull);
        }
        queue.jobs.push_back(queued);
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

    fn decoys(&self) -> MutexGuard<'_, Decoys> {
        self.decoys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says once of an account that no password is good for it: its user cannot know why, and an operator can.
    fn tell(&self, subject: &Subject) {
        if self.told.is_new(subject) {
            tracing::warn!(
                kind = subject.kind.name(),
                name = %subject.name,
                "a stored password cannot be verified: it is damaged, of no known form, or asks for too much work"
            );
        }
    }

    /// The next job, waiting for one; `None` once the pool is gone.
    fn next(&self) -> Option<Queued> {
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

impl Queued {
    fn is_given_up(&self) -> bool {
        let unheard = match &self.job {
            Job::Verify { answer, .. } | Job::VerifyNobody { answer, .. } => answer.is_closed(),
            Job::Hash { answer, .. } => answer.is_closed(),
        };
        unheard || self.caller.as_ref().is_some_and(|caller| caller.strong_count() == 0)
    }
}

impl Job {
    /// Does it and answers; where nobody listens any more, that is all right.
    fn carry_out(self, shared: &Shared) {
        match self {
            Self::Verify { subject, hash, common, decoy, password, answer } => {
                let verdict = formats::verdict(hash.expose(), password.expose());
                if verdict.is_none() && !formats::is_of_nobody(hash.expose()) && formats::is_usable(password.expose()) {
                    shared.tell(&subject);
                }
                if costs_a_decoy(verdict, common) {
                    std::hint::black_box(verify(decoy.expose(), password.expose()));
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

/// Whether a decoy is verified after this verdict: where a hash cannot be verified, as of a user without a password, or is a
/// cheap one that hardly anybody has. A name that answers sooner than others would be known to exist.
fn costs_a_decoy(verdict: Option<bool>, common: bool) -> bool {
    verdict.is_none() || verdict == Some(false) && !common
}

/// Below all that serves: a flood of log-ins has the cores that requests leave, and no request waits for a core until a
/// password is verified. On Linux a thread has a priority of its own.
fn step_back() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::setpriority_process(None, NICENESS)
    {
        tracing::debug!(%error, "passwords are verified at the priority of requests");
    }
}

fn work(shared: &Shared) {
    step_back();
    while let Some(queued) = shared.next() {
        if !queued.is_given_up() {
            // a panic drops the sender, which its caller sees; the thread lives on
            catch_unwind(AssertUnwindSafe(|| queued.job.carry_out(shared))).ok();
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

    fn somebody() -> Subject {
        Subject::user("somebody")
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
        assert_eq!(wait(pool.verify(&somebody(), secret(CHEAP), secret("abc"))), Ok(true));
        assert_eq!(wait(pool.verify(&somebody(), secret(CHEAP), secret("abd"))), Ok(false));
        let made = wait(pool.hash(secret("abc"))).unwrap().unwrap();
        assert_eq!(wait(pool.verify(&somebody(), made, secret("abc"))), Ok(true));
        assert!(matches!(wait(pool.hash(secret("a\0"))), Ok(Err(HashError::Unusable))));
    }

    #[test]
    fn what_has_begun_is_finished_and_what_waits_is_given_up_once_its_caller_is_gone() {
        let pool = PasswordPool::start(1).unwrap();
        let caller = Arc::new(());
        let queued = |hash: &str| {
            CALLER.sync_scope(Arc::downgrade(&caller), || pool.verify(&somebody(), secret(hash), secret("abc")))
        };
        let begun = queued(COSTLY);
        while pool.waiting() > 0 {
            thread::yield_now();
        }
        let (waits, of_nobody) = (queued(CHEAP), pool.verify(&somebody(), secret(CHEAP), secret("abc")));
        drop(caller);
        assert_eq!((wait(begun), wait(waits), wait(of_nobody)), (Ok(false), Err(QueueFull), Ok(true)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_pool_gives_way_to_requests() {
        let pool = PasswordPool::start(1).unwrap();
        assert_eq!(wait(pool.verify_nobody(&somebody(), secret("x"))), Ok(false), "it has begun");
        let niceness = |stat: &str| -> i32 {
            // after the name, which may hold anything, niceness is the seventeenth (proc(5))
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
        };
        let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
        let own = niceness(&read("/proc/thread-self/stat".into()));
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        // those of other tests beside this one may be about to end or to begin
        let read_now = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let mut pools = tasks.filter(|task| read_now(task.join("comm")).starts_with("password-"));
        let gives_way = |stat: &str| !stat.is_empty() && niceness(stat) >= NICENESS.max(own);
        assert!(pools.any(|task| gives_way(&read_now(task.join("stat")))), "a thread of the pool");
    }

    #[test]
    fn nobody_never_matches() {
        let pool = PasswordPool::start(1).unwrap();
        assert_eq!(wait(pool.verify_nobody(&somebody(), secret(""))), Ok(false));
        pool.resemble(vec![secret(CHEAP)]);
        assert_eq!(
            wait(pool.verify_nobody(&somebody(), secret("abc"))),
            Ok(false),
            "not even with the dummy's own password"
        );
    }

    #[test]
    fn a_refusal_that_would_come_too_soon_costs_a_decoy() {
        for (name, verdict, common, expected) in [
            ("no password, or a damaged one", None, false, true),
            ("the same, of a make that others have", None, true, true),
            ("a wrong one, of a make of its own", Some(false), false, true),
            ("a wrong one", Some(false), true, false),
            ("the right one", Some(true), false, false),
            ("the right one, of a make that others have", Some(true), true, false),
        ] {
            assert_eq!(costs_a_decoy(verdict, common), expected, "{name}");
        }
    }

    #[test]
    fn the_queue_has_an_end_and_gives_room_for_what_was_given_up() {
        let pool = PasswordPool::start(1).unwrap();
        let mut kept: Vec<_> =
            (0..WAITING_MAX).map(|_| pool.verify(&somebody(), secret(COSTLY), secret("x"))).collect();
        // the thread takes one or none meanwhile, so that of two more one at least is refused
        let refused = [
            pool.verify(&somebody(), secret(CHEAP), secret("abc")),
            pool.verify(&somebody(), secret(CHEAP), secret("abc")),
        ];
        let refused = refused.into_iter().map(|future| {
            let mut future = Box::pin(future);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            future.as_mut().poll(&mut context) == std::task::Poll::Ready(Err(QueueFull))
        });
        assert!(refused.filter(|&refused| refused).count() >= 1);
        assert!(pool.waiting() >= WAITING_MAX - 1 && pool.waiting() <= WAITING_MAX);
        kept.clear();
        assert_eq!(
            wait(pool.verify(&somebody(), secret(CHEAP), secret("abc"))),
            Ok(true),
            "and the given up are skipped"
        );
        assert_eq!(pool.waiting(), 0);
    }

    #[test]
    fn a_pool_that_is_gone_leaves_nobody_waiting() {
        let pool = PasswordPool::start(1).unwrap();
        let waiting: Vec<_> = (0..8).map(|_| pool.verify(&somebody(), secret(COSTLY), secret("x"))).collect();
        drop(pool);
        let last = waiting.into_iter().last().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), last).await });
        assert_eq!(answer.unwrap(), Err(QueueFull));
    }
}
