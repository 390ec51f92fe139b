//! Temporary folders.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// In memory, this much must be free.
const FREE_KB_MIN: u64 = 2 << 20;
/// Removes the folder when the pipe from this process ends. A server may write for a moment after it was
/// killed.
const REMOVER: &str = r#"cat >/dev/null; sleep 0.3; until rm -rf "$1"; do sleep 0.3; done"#;

/// A folder of its own, removed when dropped, and when the process has ended, however it ended.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty folder, in memory where there is room: what is tested needs no disk to wait for.
    pub fn new(name: &str) -> Self {
        static ROOT: OnceLock<Root> = OnceLock::new();
        Self::in_root(
            ROOT.get_or_init(|| Root::new(&memory().unwrap_or_else(std::env::temp_dir), "memory")),
            name,
        )
    }

    /// An empty folder among the temporary files, which are on a disk: what is measured waits for it.
    pub fn on_disk(name: &str) -> Self {
        static ROOT: OnceLock<Root> = OnceLock::new();
        Self::in_root(ROOT.get_or_init(|| Root::new(&std::env::temp_dir(), "disk")), name)
    }

    fn in_root(root: &Root, name: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = root.path.join(format!("{name}-{number}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is; it stays until the process ends.
    pub fn keep(self) -> PathBuf {
        std::mem::ManuallyDrop::new(self).0.clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what is left goes with the root
    }
}

/// Has all folders of this process.
struct Root {
    path: PathBuf,
    _remover: Child,
}

impl Root {
    fn new(parent: &Path, name: &str) -> Self {
        let path = parent.join(format!("sailfish-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path); // of an earlier process of this number
        fs::create_dir_all(&path).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", REMOVER, "sh"]).arg(&path);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Self { path, _remover: command.spawn().expect("sh") }
    }
}

fn memory() -> Option<PathBuf> {
    let free = Command::new("df").args(["--output=avail", "/dev/shm"]).output().ok()?;
    let free_kb: u64 = String::from_utf8(free.stdout).ok()?.lines().last()?.trim().parse().ok()?;
    (free_kb > FREE_KB_MIN).then(|| "/dev/shm".into())
}
