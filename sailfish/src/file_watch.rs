//! Finds out when files are replaced.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How often files are looked at.
pub const LOOK: Duration = Duration::from_secs(2);

/// Files, and what the file system says of them.
pub struct FileWatch {
    files: Vec<PathBuf>,
    /// As they were when they were last taken, or refused.
    known: Vec<FileState>,
    /// As they were at the last look.
    seen: Vec<FileState>,
}

/// Of a file: when it was written, its number and its length. None, if it is not there.
type FileState = Option<(SystemTime, u64, u64)>;

impl FileWatch {
    /// The files as they are now are known.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let states = states(&files);
        Self { files, known: states.clone(), seen: states }
    }

    /// Whether they have changed since they were last known, and not since the last look: files that belong
    /// together are replaced one after the other. They are known then.
    pub fn have_changed(&mut self) -> bool {
        let states = states(&self.files);
        let is_still = states == self.seen;
        self.seen = states;
        if !is_still || self.seen == self.known {
            return false;
        }
        self.known.clone_from(&self.seen);
        true
    }
}

fn states(files: &[PathBuf]) -> Vec<FileState> {
    let state = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
    };
    files.iter().map(state).collect()
}
