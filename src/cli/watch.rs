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

/// How many looks in a row may each see another state before the file is read as it is. What is half written is refused as a
/// whole; a file that is written every second, or one among many, must not keep the old rules in force for ever.
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
    fn changed_since(&self, time: SystemTime) -> bool {
        let time = time.checked_sub(TICK).and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.changed >= (seconds, i64::from(time.subsec_nanos()))
    }
}

/// Files under watch.
#[derive(Debug)]
pub(super) struct Watch {
    /// The configuration, and the variables beside it, which may yet come.
    always: [PathBuf; 2],
    /// As they were before what they hold was last read.
    settled: HashMap<PathBuf, Option<Seen>>,
    /// As they were at the last look, where that differs: a writer may still be at work. And how many looks that is so.
    moving: Option<(HashMap<PathBuf, Option<Seen>>, u32)>,
    clock: Clock,
    /// When they were last settled.
    looked: SystemTime,
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

    /// Looks at the files: true once after a change, when two looks in a row have seen the same, or when they have not for
    /// too long.
    pub(super) fn changed(&mut self) -> bool {
        let now = self.look();
        if now == self.settled {
            self.moving = None;
            return false;
        }
        let looks = match &self.moving {
            Some((before, _)) if *before == now => MOVING_LOOKS_MAX,
            Some((_, looks)) => looks + 1,
            None => 0,
        };
        if looks >= MOVING_LOOKS_MAX {
            self.settled = now;
            self.moving = None;
            return true;
        }
        self.moving = Some((now, looks));
        false
    }

    fn look(&self) -> HashMap<PathBuf, Option<Seen>> {
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

    #[test]
    fn a_change_is_told_once_and_only_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = Watch::of(&file, Clock::system());
        assert!(!watch.changed());
        std::fs::write(&file, "ab").unwrap();
        assert!(!watch.changed(), "still moving");
        std::fs::write(&file, "abc").unwrap();
        assert!(!watch.changed(), "moved again");
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_file_that_never_settles_is_told_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, "").unwrap();
        let mut watch = Watch::of(&file, Clock::system());
        for round in 0..3 {
            let told = (1..=10).position(|look| {
                std::fs::write(&file, "a".repeat(20 * (round + 1) + look)).unwrap();
                watch.changed()
            });
            assert_eq!(told, Some(MOVING_LOOKS_MAX as usize), "round {round}");
        }
        assert!(!noticed(&mut watch), "what was told last is what is there");
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
        assert!(!watch.changed());
        assert!(watch.changed());
        std::fs::remove_file(&link).unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
    }

    /// Whether a change is noticed.
    fn noticed(watch: &mut Watch) -> bool {
        watch.changed() || watch.changed()
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
