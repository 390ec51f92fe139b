//! The secrets of tokens, of the cluster and of the bridge: given, or made once and kept in a file of the
//! user's own.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config::{BridgeConfig, ClusterConfig, SECRET_BYTES_MIN, TokenConfig};

/// Bytes of randomness in a secret that is made here.
const SECRET_BYTES: usize = 32;

/// A secret and where it came from.
#[derive(Clone)]
pub struct Secret {
    /// What tokens are signed with.
    pub bytes: Vec<u8>,
    /// Its file; `None` if the secret was given directly.
    pub file: Option<PathBuf>,
}

impl Secret {
    /// The secret of a configuration. If none is configured, the one that the first run made; without any,
    /// this is the first run.
    pub fn find(config: &TokenConfig) -> anyhow::Result<Self> {
        Self::of("token", "token.secret_file", &config.secret, &config.secret_file)
    }

    /// The secret of a cluster, found in the same way.
    pub fn of_cluster(config: &ClusterConfig) -> anyhow::Result<Self> {
        Self::of("cluster", "cluster.secret_file", &config.secret, &config.secret_file)
    }

    /// The secret by which a bridge signs its requests to the backend, found in the same way.
    pub fn of_bridge(config: &BridgeConfig) -> anyhow::Result<Self> {
        Self::of("bridge", "bridge.secret_file", &config.secret, &config.secret_file)
    }

    /// The secret of callers of `/internal/`, found in the same way.
    pub fn of_internal(given: &str) -> anyhow::Result<Self> {
        Self::of("internal", "backend.internal_secret", given, Path::new(""))
    }

    /// `name` is its file in the state folder, `key` the setting that replaces it.
    fn of(name: &str, key: &str, given: &str, file: &Path) -> anyhow::Result<Self> {
        if !given.is_empty() {
            return Ok(Self { bytes: given.as_bytes().to_vec(), file: None });
        }
        if !file.as_os_str().is_empty() {
            let bytes = read(file, Others::Refused).with_context(|| format!("{key}: {}", file.display()))?;
            return Ok(Self { bytes, file: Some(file.to_owned()) });
        }
        let path = state_file(&format!("{name}-secret")).with_context(|| format!("set {key}"))?;
        let wish = || format!("{}: cannot keep a {name} secret here; set {key}", path.display());
        let bytes = match read(&path, Others::ShutOut) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path).with_context(wish)?,
            read => read.with_context(wish)?,
        };
        Ok(Self { bytes, file: Some(path) })
    }
}

/// Random bytes of the system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .expect("every Linux since 3.17 has getrandom");
    }
    bytes
}

/// What to do with a file that every user of the machine may read or write.
#[derive(Clone, Copy)]
enum Others {
    /// Others lose access: the file is our own.
    ShutOut,
    /// The file is refused: only its owner knows what it is for.
    Refused,
}

/// Reads a file that only its owner and group may read or write.
pub fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    check_mode(path, Others::Refused)?;
    crate::read::read(path)
}

fn check_mode(path: &Path, others: Others) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    match others {
        Others::ShutOut if mode & 0o077 != 0 => fs::set_permissions(path, fs::Permissions::from_mode(0o600)),
        Others::Refused if mode & 0o007 != 0 => {
            let wish = "every user of this machine may read or write it; want mode 600 or 640";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, wish))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path, others: Others) -> io::Result<Vec<u8>> {
    check_mode(path, others)?;
    let mut bytes = crate::read::read(path)?;
    while bytes.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.len() < SECRET_BYTES_MIN {
        let wish = format!("want a secret of at least {SECRET_BYTES_MIN} bytes, not {}", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, wish));
    }
    Ok(bytes)
}

/// The path of a file of that name that the first run makes.
pub fn state_file(name: &str) -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let state = state.context("neither XDG_STATE_HOME nor HOME is set")?;
    Ok(state.join("sailfish").join(name))
}

/// Makes a folder for private files. If it exists, others lose access to it, unless it has another owner.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
        match fs::set_permissions(folder, fs::Permissions::from_mode(0o700)) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {} // of another owner's folder, what is in it is private by itself
        }
    }
    Ok(())
}

/// Makes a secret, or reads the one that another process made at the same moment: the file appears complete
/// or not at all.
fn make(path: &Path) -> io::Result<Vec<u8>> {
    let folder = path.parent().expect("it ends in sailfish/ and a name");
    private_folder(folder)?;
    let digits: String = random::<SECRET_BYTES>().iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = folder.join(format!(".secret.{}.{}", std::process::id(), u64::from_ne_bytes(random())));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(digits.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read(path, Others::ShutOut),
    }
}
