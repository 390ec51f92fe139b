//! Finds out when files are replaced.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How often files are looked at.
pub const LOOK: Duration = Duration::from_secs(2);

/// Files, and their state in the file system.
pub struct FileWatch {
    files: Vec<PathBuf>,
    /// Their states when they were last read, or refused.
    known: Vec<FileState>,
    /// Their states at the last look.
    seen: Vec<FileState>,
}

/// When a file was written, its number and its length; `None` if it does not exist.
type FileState = Option<(SystemTime, u64, u64)>;

impl FileWatch {
    /// Begins with the files as they are now.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let states = states(&files);
        Self { files, known: states.clone(), seen: states }
    }

    /// Whether they have changed since they were last known, but not since the last look: files that belong
    /// together are replaced one after the other. Their new states are known then.
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
