//! A network namespace of its own, with a larger table of TCP connections.
//!
//! The kernel finds the socket of each packet in a hash table that is as large as the machine's memory makes
//! it: 262,144 buckets with 24 GiB. A million connections with both ends on one machine are eight sockets to
//! a bucket, and 22 % of all CPU time went into walking through them. A new namespace can have a table of its
//! own (`net.ipv4.tcp_child_ehash_entries`, Linux 6.1). Nothing of the system is changed: namespace and table
//! go with the command.
//!
//! A user without privileges first makes a user namespace. The limit of locked memory holds in it, so this
//! has to be high enough for all rings (`ulimit -Hl`).

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// Two buckets to a socket, where there are two million; the most that the kernel gives is four times that.
const BUCKETS: u32 = 1 << 22;
/// In a namespace that is made for this alone: says how large the table of the next one is to be, makes that
/// one, and runs the arguments in it.
const WITHIN: &str = r#"echo "$0" > /proc/sys/net/ipv4/tcp_child_ehash_entries && \
    exec unshare --net sh -c 'ip link set lo up && exec "$@"' sh "$@""#;

/// How such a namespace can be had here; `None` where it cannot.
pub fn way() -> Option<Way> {
    [Way::Superuser, Way::Anybody].into_iter().find(|way| {
        let tried = way.within(&["true"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    })
}

/// The user that makes the namespace.
#[derive(Clone, Copy)]
pub enum Way {
    /// The superuser.
    Superuser,
    /// Anybody, in a user namespace.
    Anybody,
}

/// Runs this command in one.
pub fn run_again(way: Way) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let own = own.to_str().context("the path of xtask is no text")?.to_owned();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = [&own].into_iter().chain(&arguments).map(String::as_str).chain(["--in-place"]);
    let status = way.within(&all.collect::<Vec<_>>()).status()?;
    ensure!(status.success(), "it did not pass");
    Ok(())
}

/// How many buckets the table has that this process uses.
pub fn buckets() -> anyhow::Result<u64> {
    // Negative when the table is that of the namespace above.
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_ehash_entries")?;
    Ok(text.trim().parse::<i64>()?.unsigned_abs())
}

impl Way {
    fn within(self, command: &[&str]) -> Command {
        let mut unshare = Command::new("unshare");
        if matches!(self, Self::Anybody) {
            unshare.arg("--map-root-user");
        }
        unshare.args(["--net", "sh", "-c", WITHIN, &BUCKETS.to_string()]).args(command);
        unshare
    }
}
