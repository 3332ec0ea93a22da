//! Notices that the configuration or a file it was read from is another one now.
//!
//! Looks once a second instead of asking the system to be told: a look also sees what notifications miss, such as a
//! symbolic link that was swapped (Kubernetes) or a file that was replaced by a rename.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Clock;

/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many looks in a row must see the same, after the one that saw a change, where a file was put in its place whole: by a
/// rename.
const RESTS_PUT: u32 = 1;

/// The same where it may have been written where it stands. Whoever writes it may be between two writes: a shell that appends
/// line by line, a slow link, a machine under load.
const RESTS_WRITTEN: u32 = 2;

/// How many looks in a row may each see files beside the configuration in motion before they are read as they are: one that
/// is written every second, or one among many, must not keep the old rules in force for ever. The configuration itself is
/// waited for: a half of it may open what the other half closes.
const MOVING_LOOKS_MAX: u32 = 5;

/// File systems date changes by a clock that ticks this rarely.
const TICK: Duration = Duration::from_millis(10);

/// What a file was seen as. Symbolic links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    /// Whether it is another file than `before`, that was put in its place by a rename: written before it came there. A file
    /// that was made and written where it stands has both dates from its last write.
    fn was_put(&self, before: Option<Self>) -> bool {
        let is_another = before.is_none_or(|before| (before.device, before.inode) != (self.device, self.inode));
        is_another && self.modified < self.changed
    }

    fn changed_since(&self, time: SystemTime) -> bool {
        let time = time.checked_sub(TICK).and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.changed >= (seconds, i64::from(time.subsec_nanos()))
    }
}

/// Files as they were seen; `None`: not there.
type Files = HashMap<PathBuf, Option<Seen>>;

/// Files under watch.
#[derive(Debug)]
pub(super) struct Watch {
    /// The configuration, and the variables beside it, which may yet come.
    always: [PathBuf; 2],
    /// As they were before what they hold was last read.
    settled: Files,
    /// Where they differ from that: a writer may still be at work.
    moving: Option<Moving>,
    clock: Clock,
    /// When they were last settled.
    looked: SystemTime,
}

/// Files in motion.
#[derive(Debug, Default)]
struct Moving {
    /// At the last look.
    seen: Files,
    /// At how many looks in a row each was as at the one before.
    rests: HashMap<PathBuf, u32>,
    /// Looks that saw another configuration than the one before.
    source_looks: u32,
    /// Looks in a row that saw others in motion.
    beside_looks: u32,
    /// Whether somebody was told that the configuration is waited for.
    is_said: bool,
}

/// How the configuration was when it was about to be read.
#[derive(Debug)]
pub(super) struct Rest {
    source: PathBuf,
    seen: Option<Seen>,
}

impl Rest {
    /// Whether it is so still: what was read in between is no half of it.
    pub(super) fn goes_on(&self) -> bool {
        look(&self.source) == self.seen
    }
}

impl Watch {
    /// Watches the configuration at `source` from how it is now: before it is read.
    pub(super) fn of(source: &Path, clock: Clock) -> Self {
        let always = [source.to_owned(), source.with_file_name(".env")];
        let settled = always.iter().map(|file| (file.clone(), look(file))).collect();
        let looked = clock.wall();
        Self { always, settled, moving: None, clock, looked }
    }

    /// Takes the files as they are now for known. Comes before they are read: what is saved while they are, is a change.
    pub(super) fn settle(&mut self) {
        self.looked = self.clock.wall();
        self.settled = self.look();
        self.moving = None;
    }

    /// Watches these files from here on, beside the configuration: those that were just read. One that is new, and so was
    /// not looked at before it was read, has changed if it did since the others were.
    pub(super) fn follow(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let before = std::mem::take(&mut self.settled);
        let looked = self.looked;
        let seen = |file: &Path| look(file).filter(|seen| !seen.changed_since(looked));
        self.settled = (self.always.iter().cloned().chain(files))
            .map(|file| {
                let settled = before.get(&file).copied().unwrap_or_else(|| seen(&file));
                (file, settled)
            })
            .collect();
    }

    /// How the configuration is as far as is known: for whoever is about to read it.
    pub(super) fn rest(&self) -> Rest {
        let [source, _] = &self.always;
        Rest { source: source.clone(), seen: self.settled.get(source).copied().flatten() }
    }

    /// Looks at the files: true once after a change, when all of them rest, or the configuration does and the others have
    /// not for too long.
    pub(super) fn changed(&mut self) -> bool {
        let (looked, now) = (self.clock.wall(), self.look());
        if now == self.settled {
            self.moving = None;
            return false;
        }
        let mut moving = self.moving.take().unwrap_or_default();
        let [source, _] = &self.always;
        let (mut source_moves, mut beside_moves) = (false, false);
        for (file, &seen) in &now {
            let rests = moving.rests.entry(file.clone()).or_default();
            *rests = if moving.seen.get(file) == Some(&seen) { *rests + 1 } else { 0 };
            let settled = self.settled.get(file).copied().flatten();
            let needed = if seen.is_some_and(|seen| seen.was_put(settled)) { RESTS_PUT } else { RESTS_WRITTEN };
            let moves = seen != settled && *rests < needed;
            *(if file == source { &mut source_moves } else { &mut beside_moves }) |= moves;
        }
        moving.seen = now;
        let beside_is_late = beside_moves && moving.beside_looks >= MOVING_LOOKS_MAX;
        if !source_moves && (!beside_moves || beside_is_late) {
            (self.looked, self.settled) = (looked, moving.seen);
            return true;
        }
        moving.beside_looks = if beside_moves { moving.beside_looks + 1 } else { 0 };
        moving.source_looks += u32::from(source_moves && moving.rests.get(source) == Some(&0));
        if moving.source_looks > MOVING_LOOKS_MAX && !moving.is_said {
            moving.is_said = true;
            tracing::warn!(
                file = %source.display(),
                "the configuration keeps changing: it is read once it rests, or at once by SIGHUP"
            );
        }
        self.moving = Some(moving);
        false
    }

    fn look(&self) -> Files {
        self.settled.keys().map(|file| (file.clone(), look(file))).collect()
    }
}

fn look(file: &Path) -> Option<Seen> {
    let found = std::fs::metadata(file).ok()?;
    Some(Seen {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which look from here on a change is told, of at most twenty.
    fn told(watch: &mut Watch) -> Option<usize> {
        (1..=20).position(|_| watch.changed())
    }

    /// Puts a text that was written a while ago where it is to be found.
    fn rename_over(file: &Path, text: &str) {
        let fresh = file.with_extension("fresh");
        std::fs::write(&fresh, text).unwrap();
        let open = std::fs::File::options().append(true).open(&fresh).unwrap();
        open.set_modified(open.metadata().unwrap().modified().unwrap() - Duration::from_secs(1)).unwrap();
        std::fs::rename(fresh, file).unwrap();
    }

    #[test]
    fn a_change_is_told_once_and_only_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = Watch::of(&file, Clock::system());
        assert!(!watch.changed());
        // while it is open no other file gets its number
        let _open = std::fs::File::open(&file).unwrap();
        rename_over(&file, "ab");
        assert!(!watch.changed(), "still moving");
        rename_over(&file, "abc");
        assert!(!watch.changed(), "moved again");
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_file_that_is_written_where_it_stands_rests_longer_than_one_that_was_put_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, "a").unwrap();
        let append = |text: &[u8]| {
            let mut open = std::fs::File::options().append(true).open(&file).unwrap();
            std::io::Write::write_all(&mut open, text).unwrap();
        };
        let mut watch = Watch::of(&file, Clock::system());
        let (put, written) = (Some(RESTS_PUT as usize), Some(RESTS_WRITTEN as usize));
        assert_eq!(told(&mut watch), None);
        rename_over(&file, "ab");
        assert_eq!(told(&mut watch), put, "renamed over it");
        append(b"c");
        assert_eq!(told(&mut watch), written, "grown");
        std::fs::write(&file, "").unwrap();
        assert_eq!(told(&mut watch), written, "shrunk");
        rename_over(&file, "abc");
        assert!(!watch.changed());
        append(b"d");
        assert_eq!(told(&mut watch), written, "renamed over it, and grown then");
        std::fs::rename(&file, folder.path().join("away")).unwrap();
        std::fs::write(&file, "the first half of it").unwrap();
        assert_eq!(told(&mut watch), written, "moved away, and written anew");
        // as a writer does it who sleeps for longer than between two looks
        std::fs::write(&file, "the first half").unwrap();
        assert!((0..RESTS_WRITTEN).all(|_| !watch.changed()));
        append(b" and the second");
        assert_eq!(told(&mut watch), written);
    }

    #[test]
    fn a_configuration_that_never_rests_is_never_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, "").unwrap();
        let mut watch = Watch::of(&file, Clock::system());
        for round in 0..3 {
            for look in 1..=30_u32 {
                std::fs::write(&file, "a".repeat(40 * (round + 1) + look as usize)).unwrap();
                assert!(!watch.changed(), "round {round}, look {look}");
                let is_said = watch.moving.as_ref().is_some_and(|moving| moving.is_said);
                assert_eq!(is_said, look > MOVING_LOOKS_MAX, "round {round}, look {look}");
            }
            assert!(noticed(&mut watch), "it rests");
        }
        std::fs::write(&file, "it is read by a signal").unwrap();
        assert!(!watch.changed());
        watch.settle();
        assert!(!noticed(&mut watch), "what was read is what is there");
    }

    #[test]
    fn what_stands_beside_and_never_rests_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let (file, beside) = (folder.path().join("gateway.yaml"), folder.path().join("secret"));
        std::fs::write(&file, "").unwrap();
        std::fs::write(&beside, "").unwrap();
        let mut watch = Watch::of(&file, Clock::system());
        watch.follow([beside.clone()]);
        let mut bytes = 0;
        let mut look = |watch: &mut Watch| {
            bytes += 1;
            std::fs::write(&beside, "a".repeat(bytes)).unwrap();
            watch.changed()
        };
        while noticed(&mut watch) {}
        for round in 0..3 {
            let told = (1..=10).position(|_| look(&mut watch));
            assert_eq!(told, Some(MOVING_LOOKS_MAX as usize), "round {round}");
        }
        rename_over(&file, "a");
        let told = (1..=10).position(|_| look(&mut watch));
        assert_eq!(told, Some(MOVING_LOOKS_MAX as usize), "the configuration changed as well, and rests");
        for bytes in 1..20 {
            std::fs::write(&file, "a".repeat(bytes)).unwrap();
            assert!(!look(&mut watch), "the configuration moves as well");
        }
        let told = (1..=10).position(|_| look(&mut watch));
        assert_eq!(told, Some(RESTS_WRITTEN as usize - 1), "it has rested, and what stands beside had its time");
    }

    #[test]
    fn what_moves_while_it_is_read_is_seen_to() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = Watch::of(&file, Clock::system());
        watch.settle();
        let rests = watch.rest();
        assert!(rests.goes_on());
        std::fs::write(&file, "ab").unwrap();
        assert!(!rests.goes_on());
    }

    #[test]
    fn a_swapped_link_and_a_removed_file_are_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, link) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("link"));
        std::fs::write(&one, "a").unwrap();
        std::fs::write(&two, "a").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let mut watch = Watch::of(&link, Clock::system());
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert!(noticed(&mut watch));
        std::fs::remove_file(&link).unwrap();
        assert!(noticed(&mut watch));
    }

    /// Whether a change is noticed.
    fn noticed(watch: &mut Watch) -> bool {
        told(watch).is_some()
    }

    #[test]
    fn what_is_saved_while_it_is_read_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = Watch::of(&file, Clock::system());
        std::fs::write(&file, "ab").unwrap();
        watch.follow([]);
        assert!(noticed(&mut watch), "during the first load");
        watch.settle();
        std::fs::write(&file, "abc").unwrap();
        watch.follow([]);
        assert!(noticed(&mut watch), "during a reload");
        watch.settle();
        watch.follow([]);
        assert!(!noticed(&mut watch), "nothing was saved");
    }

    #[test]
    fn variables_that_come_later_are_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::of(&folder.path().join("gateway.yaml"), Clock::system());
        assert!(!noticed(&mut watch));
        std::fs::write(folder.path().join(".env"), "A=1").unwrap();
        assert!(noticed(&mut watch));
    }

    #[test]
    fn a_file_that_a_load_has_found_is_watched_from_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, since, expected) in [("old", Duration::from_hours(1), false), ("new", Duration::ZERO, true)] {
            let clock = Clock::system();
            clock.advance(since);
            let mut watch = Watch::of(&at("gateway.yaml"), clock);
            std::fs::write(at(name), "secret").unwrap();
            watch.follow([at(name)]);
            assert_eq!(noticed(&mut watch), expected, "{name}");
            std::fs::write(at(name), "another").unwrap();
            assert!(noticed(&mut watch), "{name}");
            watch.settle();
            watch.follow([]);
            std::fs::write(at(name), "a third one").unwrap();
            assert!(!noticed(&mut watch), "{name}: it is not part of the configuration any more");
        }
        let mut watch = Watch::of(&at("gateway.yaml"), Clock::system());
        watch.follow([at("missing")]);
        assert!(!noticed(&mut watch));
        std::fs::write(at("missing"), "").unwrap();
        assert!(noticed(&mut watch), "what a refused configuration lacked is there now");
    }
}
