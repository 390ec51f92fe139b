//! The exclusive resources of a process, checked together before anything starts: addresses to listen on, and
//! an SQLite file.

use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

use crate::database_lock::{DatabaseLock, InUse};
use crate::shell::{program, quoted_text};

/// How long an address in use is tried again. The kernel takes down the io_uring of a killed process in the
/// background, and closes its listeners with that.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);
/// How far from the wanted port free ones are looked for.
const OFFSETS: std::ops::RangeInclusive<u16> = 1..=50;
const OFFSET: u16 = 10;

/// An address to listen on, and how many ports from there on.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// The first.
    pub address: SocketAddr,
    /// How many ports in a row.
    pub count: u16,
    /// How the user chooses it: a flag, or a key.
    pub chosen_by: &'static str,
}

impl Wanted {
    /// One port.
    pub fn one(address: SocketAddr, chosen_by: &'static str) -> Self {
        Self { address, count: 1, chosen_by }
    }

    fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        let port = self.address.port();
        (0..self.count).map_while(move |at| Some(SocketAddr::new(self.address.ip(), port.checked_add(at)?)))
    }

    /// The first address that cannot be listened on, and why.
    fn refusal(self) -> Option<(SocketAddr, io::Error)> {
        self.addresses().find_map(|address| try_bind(address).err().map(|error| (address, error)))
    }
}

/// A database, and how the user chooses it.
#[derive(Clone, Copy)]
pub struct Database<'a> {
    /// Its URL.
    pub url: &'a str,
    /// A flag, or a key.
    pub chosen_by: &'static str,
}

/// A resource that is not free, and one that is free instead.
struct Refused {
    reason: String,
    chosen_by: &'static str,
    instead: String,
    is_in_use: bool,
}

/// Waits until each address can be listened on and the database is free, and takes the database's lock.
///
/// # Errors
/// Names all that are not free, and gives a command line that works instead.
pub fn check(wanted: &[Wanted], database: Option<Database<'_>>) -> anyhow::Result<Option<DatabaseLock>> {
    let clashing = clashes(wanted);
    anyhow::ensure!(clashing.is_empty(), told(&clashing, words()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ports: Vec<_> = wanted.iter().filter_map(|wanted| Some((*wanted, wanted.refusal()?))).collect();
        let mut lock = None;
        let mut in_use = None;
        if let Some(Database { url, chosen_by }) = database {
            match DatabaseLock::take(url).with_context(|| format!("{chosen_by}: {url}"))? {
                Ok(taken) => lock = taken,
                Err(other) => in_use = Some((other, chosen_by)),
            }
        }
        if ports.is_empty() && in_use.is_none() {
            return Ok(lock);
        }
        let may_pass = ports.iter().all(|(_, (_, error))| error.kind() == io::ErrorKind::AddrInUse);
        if !may_pass || Instant::now() >= deadline {
            let refused: Vec<Refused> = of_ports(ports).into_iter().chain(in_use.map(of_database)).collect();
            anyhow::bail!(told(&refused, words()));
        }
        sleep(PAUSE);
    }
}

/// The words of the command line after the program.
fn words() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Addresses that are used twice, each with a free one.
fn clashes(wanted: &[Wanted]) -> Vec<Refused> {
    let all: Vec<SocketAddr> = wanted.iter().copied().flat_map(Wanted::addresses).collect();
    let mut refused = Vec::new();
    for (at, second) in wanted.iter().enumerate() {
        let first = wanted[..at].iter().find(|first| {
            first.address.port() != 0
                && first.addresses().any(|taken| second.addresses().any(|own| own == taken))
        });
        if let Some(first) = first {
            refused.push(Refused {
                reason: format!(
                    "{} is wanted twice, by {} and by {}",
                    second.address, first.chosen_by, second.chosen_by
                ),
                chosen_by: second.chosen_by,
                instead: elsewhere(*second, &all).to_string(),
                is_in_use: false,
            });
        }
    }
    refused
}

/// Each with a free address that none of the others gets.
fn of_ports(ports: Vec<(Wanted, (SocketAddr, io::Error))>) -> Vec<Refused> {
    let mut given: Vec<SocketAddr> = Vec::new();
    let mut refused = Vec::new();
    for (wanted, (address, error)) in ports {
        let chosen_by = wanted.chosen_by;
        let instead = elsewhere(wanted, &given);
        given.extend(Wanted { address: instead, ..wanted }.addresses());
        refused.push(Refused {
            reason: reason(address, &error, chosen_by),
            chosen_by,
            instead: instead.to_string(),
            is_in_use: error.kind() == io::ErrorKind::AddrInUse,
        });
    }
    refused
}

fn of_database((in_use, chosen_by): (InUse, &'static str)) -> Refused {
    Refused { reason: in_use.reason(), chosen_by, instead: in_use.instead(), is_in_use: true }
}

fn told(refused: &[Refused], words: Vec<String>) -> String {
    let reasons: Vec<&str> = refused.iter().map(|refused| refused.reason.as_str()).collect();
    let reasons = reasons.join("; ");
    let others: Vec<_> =
        refused.iter().map(|refused| (refused.chosen_by, refused.instead.as_str())).collect();
    // A secret that was given as a flag is not printed again.
    let has_secret = words.iter().any(|word| word.contains('@') || word.contains("secret="));
    let command = match has_secret {
        true => command("the same command with".into(), std::iter::empty(), &others),
        false => command(program(), words.into_iter(), &others),
    };
    if !refused.iter().any(|refused| refused.is_in_use) {
        return format!("{reasons}; this would start: {command}");
    }
    format!(
        "{reasons}\nStop what is there, perhaps another sailfish, or start this one elsewhere:\n  {command}"
    )
}

/// Binds as a listener does, but does not listen: no client connects in vain.
fn try_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn reason(address: SocketAddr, error: &io::Error, chosen_by: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} ({chosen_by}) is in use")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{address} ({chosen_by}): no permission to listen there; ports from 1024 on need none")
        }
        io::ErrorKind::AddrNotAvailable => format!("{address} ({chosen_by}) is no address of this machine"),
        _ => format!("{address} ({chosen_by}): {error}"),
    }
}

/// A free address near the one that is not: on this machine, from port 1024 on.
fn elsewhere(wanted: Wanted, given: &[SocketAddr]) -> SocketAddr {
    let mut near = wanted;
    if near.refusal().is_some_and(|(_, error)| error.kind() == io::ErrorKind::AddrNotAvailable) {
        near.address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let port = near.address.port().max(1024);
    for offset in OFFSETS {
        near.address.set_port(port.saturating_add(offset * OFFSET));
        if near.refusal().is_none() && near.addresses().all(|address| !given.contains(&address)) {
            return near.address;
        }
    }
    near.address.set_port(0);
    near.address
}

/// A command line with other values for some of its flags and keys.
fn command(program: String, words: impl Iterator<Item = String>, others: &[(&str, &str)]) -> String {
    let mut kept = vec![program];
    let mut words = words.peekable();
    let is_replaced = |flag: &str, value: Option<&str>| {
        others.iter().any(|(chosen_by, _)| match value.and_then(|value| value.split_once('=')) {
            Some((key, _)) if flag == "--set" => key.trim() == *chosen_by,
            _ => flag == *chosen_by,
        })
    };
    while let Some(word) = words.next() {
        let (flag, inline) =
            word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
        let value = inline.or(words.peek().map(String::as_str));
        if word.starts_with("--") && is_replaced(flag, value) {
            if inline.is_none() {
                words.next();
            }
            continue;
        }
        kept.push(quoted_text(&word));
    }
    for (chosen_by, value) in others {
        match chosen_by.starts_with("--") {
            true => kept.push(format!("{chosen_by} {}", quoted_text(value))),
            false => kept.push(format!("--set {}", quoted_text(&format!("{chosen_by}={value}")))),
        }
    }
    kept.join(" ")
}

/// One line that says what to do.
pub fn listen_error(error: io::Error, address: SocketAddr, flag: &str) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use: another program listens there, perhaps another sailfish; stop it, or choose another \
             address with {flag} ADDRESS:PORT"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!(
                "{address}: no permission to listen there; choose a port from 1024 on with {flag}"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!(
                "{address} is no address of this machine; choose another with {flag} ADDRESS:PORT"
            )
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const OTHERS: [(&str, &str); 2] = [("--listen", "127.0.0.1:1"), ("backend.listen", "127.0.0.1:2")];

    #[test]
    fn a_command_line_keeps_what_is_not_in_the_way() {
        let told = |line: &str| command("s".into(), line.split(' ').map(str::to_owned), &OTHERS);
        let end = "--listen 127.0.0.1:1 --set backend.listen=127.0.0.1:2";
        assert_eq!(told("up"), format!("s up {end}"));
        assert_eq!(
            told("up --listen [::]:5 --set backend.listen=x --shards 2"),
            format!("s up --shards 2 {end}")
        );
        let joined = "up --listen=[::]:5 --set=backend.listen=x --set=log.filter=a";
        assert_eq!(told(joined), format!("s up --set=log.filter=a {end}"));
        assert_eq!(told("up --set log.filter=a"), format!("s up --set log.filter=a {end}"));
    }

    #[test]
    fn a_secret_is_not_written_once_more() {
        let refused =
            || Refused { reason: "r".into(), chosen_by: "--admin", instead: "a:1".into(), is_in_use: true };
        let told = |word: &str| told(&[refused()], vec!["up".into(), "--set".into(), word.into()]);
        assert!(
            !told("token.secret=hush").contains("hush")
                && !told("backend.database=mysql://u:hush@h/b").contains("hush")
        );
        assert!(told("token.secret_file=/a/b").ends_with(" up --set token.secret_file=/a/b --admin a:1"));
    }

    /// Addresses that no other test listens on.
    fn addresses<const N: usize>() -> [SocketAddr; N] {
        [(); N].map(|()| SocketAddr::from(([127, 0, 0, 1], testbed::free_port())))
    }

    #[test]
    fn all_that_cannot_be_had_is_named_with_what_can() {
        let [one, two] = addresses();
        let taken = [one, two].map(|address| TcpListener::bind(address).unwrap());
        let wanted = [Wanted::one(one, "--listen"), Wanted::one(two, "--admin")];
        let Err(told) = check(&wanted, None) else { panic!("both are taken") };
        let told = told.to_string();
        for (address, flag) in [(one, "--listen"), (two, "--admin")] {
            assert!(told.contains(&format!("{address} ({flag})")), "{told}");
        }
        assert!(!told.lines().last().unwrap().contains(&one.to_string()), "{told}");
        let twice = [Wanted::one(one, "--listen"), Wanted::one(one, "--admin")];
        let Err(told) = check(&twice, None) else { panic!("it is taken") };
        let told = told.to_string();
        let after =
            |flag: &str| told.lines().last().unwrap().split(flag).nth(1).unwrap().split(' ').nth(1).unwrap();
        assert_ne!(after("--listen"), after("--admin"), "{told}");
        drop(taken);
        assert!(check(&wanted, None).unwrap().is_none());
    }

    #[test]
    fn an_address_that_is_freed_a_little_later_is_taken() {
        let [address] = addresses();
        let taken = TcpListener::bind(address).unwrap();
        let freed = std::thread::spawn(move || {
            sleep(5 * PAUSE);
            drop(taken);
        });
        assert!(check(&[Wanted::one(address, "--listen")], None).unwrap().is_none());
        freed.join().unwrap();
    }
}
