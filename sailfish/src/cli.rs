//! What all subcommands share: where the configuration comes from, and how output is written.

use std::io::{self, Write};
use std::path::PathBuf;

use sailfish_client::Trust;
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, ENV_PREFIX, Layers};
use crate::printable::printable_lines;

/// Where the configuration comes from.
#[derive(clap::Args, Clone, Default)]
pub struct ConfigArgs {
    /// A TOML file with the configuration; see `sailfish up --print-config`.
    #[arg(long, value_name = "FILE", env = "SAILFISH_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Sets one key of the configuration, like limits.rooms_max=8; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// The layers: file, environment, `--set`.
    fn layers(&self) -> Result<Layers, ConfigError> {
        let mut layers = Layers::new();
        if let Some(file) = &self.config {
            layers.file(file)?;
        }
        let vars = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value));
        let own = vars.filter(|(name, _)| name.starts_with(ENV_PREFIX));
        let texts = own.map(|(name, value)| match value.into_string() {
            Ok(text) => Ok((name, text)),
            Err(_) => Err(ConfigError(format!("{name}: want UTF-8"))),
        });
        layers.env(texts.collect::<Result<Vec<_>, _>>()?.into_iter())?;
        for assignment in &self.set {
            layers.set(assignment)?;
        }
        Ok(layers)
    }

    /// The layers with flags on top that stand for keys: flag, key, and the value if it was given.
    pub fn layers_with<'a>(
        &self,
        flags: impl IntoIterator<Item = (&'a str, &'a str, &'a Option<String>)>,
    ) -> Result<Layers, ConfigError> {
        let mut layers = self.layers()?;
        for (flag, key, value) in flags {
            if let Some(value) = value {
                layers.text(key, value, flag)?;
            }
        }
        layers.warnings().iter().for_each(|warning| warn(warning));
        Ok(layers)
    }

    /// The configuration of the layers.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.layers_with([])?.config()
    }
}

/// The server certificates that a client by TLS trusts.
#[derive(clap::Args, Clone, Default, Serialize, Deserialize)]
pub struct TrustArgs {
    /// Certificates of authorities in PEM: a server by TLS must have a certificate of one of them [default:
    /// those that the system trusts].
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Trusts every server, whatever its certificate says. For tests.
    #[arg(long)]
    insecure: bool,
}

impl TrustArgs {
    /// What the flags say.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn trust(&self) -> Result<Trust, ConfigError> {
        match &self.ca {
            _ if self.insecure => Ok(Trust::Anybody),
            Some(file) => {
                let refused = |error| ConfigError(format!("--ca {}: {error}", file.display()));
                Ok(Trust::Roots(crate::read::read(file).map_err(refused)?))
            }
            None => Ok(Trust::System),
        }
    }
}

/// Warns of a secret that was given as a flag.
pub fn warn_of_secret(flag: &str, given: Option<&String>, variable: &str) {
    if given.is_some() {
        warn(&format!("{flag} shows the secret to every user of this machine; use {variable} instead"));
    }
}

/// Writes a line to stderr. Failing to do so is no reason to end.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Says on stderr what an operator should change.
fn warn(what: &str) {
    tell(&format!("sailfish: warning: {what}"));
}

/// Values of a flag as the array that its key wants, if there are any.
pub fn array(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| format!("[\"{}\"]", values.join("\", \"")))
}

/// Writes lines to stdout at once, as [`printable_lines`]. What cannot be written ends the process: see
/// [`written`].
pub fn print(text: &str) {
    written(write(&printable_lines(text)));
}

/// Ends the process with 1 if its output did not get out: with one line of error, or without one if the
/// reader has gone.
pub fn written(outcome: io::Result<()>) {
    let Err(error) = outcome else { return };
    if error.kind() != io::ErrorKind::BrokenPipe {
        complain(&format!("stdout: {error}"));
    }
    std::process::exit(1);
}

/// Whether colours are welcome on a terminal (<https://no-color.org>).
pub fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes to stdout at once.
pub fn write(text: &str) -> io::Result<()> {
    write_bytes(text.as_bytes())
}

/// The same of bytes that are our own, such as tabs.
pub fn write_bytes(bytes: &[u8]) -> io::Result<()> {
    if engine::stdout_was_closed() {
        return Err(io::Error::other("it is closed"));
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Says on stderr what went wrong.
pub fn complain(text: &str) {
    // If that fails, there is nobody else to tell.
    let _ = writeln!(io::stderr().lock(), "sailfish: {}", printable_lines(text));
}
