//! Only the owner may read an SQLite database: it holds users and money.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;

use crate::error::Error;

/// The suffixes of SQLite's files. New files get the rights of the database.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Makes the file of a database if needed, and denies others access to it.
///
/// # Errors
/// Others may read it, and we may not change that.
pub fn shut_others_out(url: &str) -> Result<(), Error> {
    let options: SqliteConnectOptions = url.parse()?;
    let file = options.get_filename();
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Ok(());
    }
    let fault = |error: io::Error| Error::internal(format!("{}: {error}", file.display()));
    // If the folder is missing, SQLite reports that.
    match OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    SUFFIXES.iter().try_for_each(|suffix| shut_out(&beside(file, suffix))).map_err(fault)
}

fn shut_out(file: &Path) -> io::Result<()> {
    match fs::metadata(file) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(file, Permissions::from_mode(MODE))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

const MODE: u32 = 0o600;
