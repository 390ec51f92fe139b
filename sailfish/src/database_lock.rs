//! One process at a time serves a SQLite file.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Held by the process that serves a SQLite file, in a file beside it; the kernel lets go of it with the
/// process.
pub struct DatabaseLock(File);

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just starting has a copy of it for a moment.
        let _ = self.0.unlock(); // a lock that cannot be let go goes with its file
    }
}

/// The error that another process holds it.
#[derive(Debug)]
pub struct InUse {
    /// The SQLite file.
    pub database: PathBuf,
    /// The id of the process, if known.
    pub process: String,
}

impl DatabaseLock {
    /// Takes the lock of a database; `None` if it is no SQLite file.
    ///
    /// # Errors
    /// The file beside the database cannot be made; the file is no database; it has a second name, by which
    /// another process could open it.
    pub fn take(url: &str) -> io::Result<Result<Option<Self>, InUse>> {
        let Some(database) = sqlite_file(url) else { return Ok(Ok(None)) };
        let database = one_name(database)?;
        let mut path = database.clone().into_os_string();
        path.push(".lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_permissions(Permissions::from_mode(0o600))?; // it may have been made open
                file.set_len(0)?;
                write!(file, "{}", std::process::id())?;
                Ok(Ok(Some(Self(file))))
            }
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                file.rewind()?;
                // The process id is a help only.
                let _ = file.take(PROCESS_BYTES_MAX).read_to_string(&mut process);
                Ok(Err(InUse { database, process }))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl InUse {
    /// One line.
    pub fn reason(&self) -> String {
        let Self { database, process } = self;
        let process = if process.is_empty() { String::new() } else { format!(" (process {process})") };
        format!("{} is in use by another sailfish{process}", database.display())
    }

    /// The name of a free database beside it.
    pub fn instead(&self) -> String {
        let beside = |number: u32| {
            let stem = self.database.file_stem().unwrap_or_default().to_string_lossy();
            self.database.with_file_name(format!("{stem}-{number}.db"))
        };
        let free = (2..).map(beside).find(|path| !path.exists()).expect("there are numbers without end");
        format!("sqlite:{}", free.display())
    }
}

/// The file of a SQLite database; `None` for one in memory, and for a database of another kind.
fn sqlite_file(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (file, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_file = !file.is_empty() && file != ":memory:" && !query.contains("mode=memory");
    is_file.then(|| Path::new(file).to_owned())
}

/// The one name by which all processes lock the file: links are followed. An existing file must be an SQLite
/// database.
fn one_name(database: PathBuf) -> io::Result<PathBuf> {
    let Ok(name) = database.canonicalize() else { return Ok(database) }; // it is not there yet
    let mut first = Vec::new();
    File::open(&name)?.take(SQLITE_HEADER.len() as u64).read_to_end(&mut first)?;
    if !first.is_empty() && first != SQLITE_HEADER {
        return Err(io::Error::other("the file is there, and is no SQLite database"));
    }
    if name.metadata()?.nlink() > 1 {
        // SQLite keeps its log beside the name that it opened: with two names it corrupts the file.
        return Err(io::Error::other("the file has a second hard link; SQLite wants a file with one name"));
    }
    Ok(name)
}

/// How a SQLite file begins (<https://www.sqlite.org/fileformat.html>, "The database header").
const SQLITE_HEADER: &[u8] = b"SQLite format 3\0";
/// The longest process id.
const PROCESS_BYTES_MAX: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sqlite_file_is_locked() {
        let file = |url| sqlite_file(url).map(|path| path.display().to_string());
        assert_eq!(file("sqlite:/a/b.db").as_deref(), Some("/a/b.db"));
        assert_eq!(file("sqlite://b.db?mode=rwc").as_deref(), Some("b.db"));
        for other in ["sqlite::memory:", "sqlite:", "sqlite:x?mode=memory&cache=shared", "mysql://u:p@h/b"] {
            assert_eq!(file(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_is_locked_once_whatever_it_is_called() {
        let folder = std::env::temp_dir().join(format!("sailfish-lock-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name);
        let take = |name: &str| DatabaseLock::take(&format!("sqlite:{}", path(name).display()));
        std::fs::write(path("real.db"), SQLITE_HEADER).unwrap();
        std::os::unix::fs::symlink(path("real.db"), path("link.db")).unwrap();
        let held = take("real.db").unwrap().unwrap();
        assert!(take("link.db").unwrap().is_err_and(|in_use| in_use.database == path("real.db")));
        drop(held);
        assert!(take("link.db").unwrap().is_ok());
        std::fs::hard_link(path("real.db"), path("hard.db")).unwrap();
        assert!(take("hard.db").is_err_and(|error| error.to_string().contains("one name")));
        std::fs::write(path("other.db"), "a letter").unwrap();
        assert!(take("other.db").is_err_and(|error| error.to_string().contains("no SQLite database")));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
