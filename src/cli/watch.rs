//! Notices that the configuration or a file it was read from is another one now.
//!
//! Looks once a second instead of asking the system to be told: a look also sees what notifications miss, such as a
//! symbolic link that was swapped (Kubernetes) or a file that was replaced by a rename.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a file was seen as. Symbolic links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files under watch.
#[derive(Debug)]
pub(super) struct Watch {
    /// As they were when they were last acted on.
    settled: HashMap<PathBuf, Option<Seen>>,
    /// As they were at the last look, where that differs: a writer may still be at work.
    moving: Option<HashMap<PathBuf, Option<Seen>>>,
}

impl Watch {
    /// Watches these files from how they are now.
    pub(super) fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        Self { settled: files.map(|file| (file.to_owned(), look(file))).collect(), moving: None }
    }

    /// Looks at the files: true once after a change, when two looks in a row have seen the same.
    pub(super) fn changed(&mut self) -> bool {
        let now: HashMap<_, _> = self.settled.keys().map(|file| (file.clone(), look(file))).collect();
        if now == self.settled {
            self.moving = None;
            return false;
        }
        if self.moving.as_ref() == Some(&now) {
            self.settled = now;
            self.moving = None;
            return true;
        }
        self.moving = Some(now);
        false
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
        let mut watch = Watch::of([file.as_path()].into_iter());
        assert!(!watch.changed());
        std::fs::write(&file, "ab").unwrap();
        assert!(!watch.changed(), "still moving");
        std::fs::write(&file, "abc").unwrap();
        assert!(!watch.changed(), "moved again");
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_swapped_link_and_a_removed_file_are_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, link) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("link"));
        std::fs::write(&one, "a").unwrap();
        std::fs::write(&two, "a").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let mut watch = Watch::of([link.as_path()].into_iter());
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
        std::fs::remove_file(&link).unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
    }
}
