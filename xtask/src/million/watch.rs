//! What the machine and the processes use, by role and by kind, over time.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use crate::bench::get;

/// Clock ticks a second in /proc: part of the kernel's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

/// What one role's processes have used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use {
    /// Since their start, in s.
    pub user_s: f64,
    pub system_s: f64,
    /// Memory of their own, in bytes: what they share with files is not in it.
    pub bytes: f64,
}

impl Use {
    /// In and out of the kernel, since their start, in s.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// One look at everything.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Since the start of the run, in s.
    pub at_s: f64,
    pub gateways: Use,
    pub routers: Use,
    pub load: Use,
    /// All cores together since the machine's start, in s: what was not idle.
    pub busy_s: f64,
    /// Of it, within the kernel and its interrupts.
    pub kernel_s: f64,
    /// Pairs of TCP sockets.
    pub connections: f64,
    /// Sessions that the routers know; `None` when one of them does not answer.
    pub sessions: Option<u64>,
    /// Memory of the kernel, in bytes: objects, sockets' buffers, stacks, page tables.
    pub kernel_bytes: f64,
    /// What programs could still have.
    pub available_bytes: f64,
}

/// What the routers say.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Routers {
    /// Sessions that they know.
    pub bindings: u64,
    /// Gateways that they are linked with, all of them counted at each.
    pub gateways: u64,
    /// Gateways that went, with their sessions.
    pub gateways_lost: u64,
    /// How many wait for gateways to agree about owners.
    pub unsettled: u64,
    /// Shards that did not answer.
    pub silent: u64,
}

impl Routers {
    /// The sessions that all know, if all have answered.
    pub fn sessions(&self) -> Option<u64> {
        (self.silent == 0).then_some(self.bindings)
    }
}

/// Looks at the processes of a run.
pub struct Watch {
    begun: Instant,
    /// Sockets that were there before.
    sockets_before: f64,
    kernel_before: f64,
}

impl Watch {
    /// Begins now: what the machine uses already does not count.
    pub fn start() -> Self {
        Self { begun: Instant::now(), sockets_before: sockets().0, kernel_before: kernel_bytes() }
    }

    /// Since the start, in s.
    pub fn now_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Looks at everything; processes that have ended count as nothing.
    pub fn look(&self, gateways: &[u32], routers: &[u32], load: &[u32]) -> Sample {
        let (busy_s, kernel_s) = machine();
        Sample {
            at_s: self.now_s(),
            gateways: used(gateways),
            routers: used(routers),
            load: used(load),
            busy_s,
            kernel_s,
            sessions: None,
            connections: ((sockets().0 - self.sockets_before) / 2.0).max(0.0),
            kernel_bytes: (kernel_bytes() - self.kernel_before).max(0.0),
            available_bytes: meminfo("MemAvailable:"),
        }
    }
}

/// What those of the routers say that answer.
pub fn ask(admins: &[SocketAddr]) -> Routers {
    let mut sum = Routers::default();
    for admin in admins {
        let Ok(page) = get(*admin, "/metrics") else {
            sum.silent += 1;
            continue;
        };
        sum.silent += u64::from(metric(&page, "sailfish_shard_up") == 0);
        sum.bindings += metric(&page, "sailfish_router_bindings");
        sum.gateways += metric(&page, "sailfish_router_gateways");
        sum.gateways_lost += metric(&page, "sailfish_router_gateways_lost_total");
        sum.unsettled += metric(&page, "sailfish_router_unsettled");
    }
    sum
}

/// The sum of a metric over its labels.
fn metric(page: &str, name: &str) -> u64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        // Another metric's name may begin with this one.
        rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' '))?
    });
    values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

/// The processes that `parents` have started, and those.
pub fn with_children(parents: &[u32]) -> Vec<u32> {
    let mut all = parents.to_vec();
    for parent in parents {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        all.extend(children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    all
}

fn used(pids: &[u32]) -> Use {
    let mut sum = Use::default();
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        let mut ticks = fields.split_whitespace().skip(11).filter_map(|field| field.parse::<f64>().ok());
        sum.user_s += ticks.next().unwrap_or_default() / TICKS_PER_SECOND;
        sum.system_s += ticks.next().unwrap_or_default() / TICKS_PER_SECOND;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        sum.bytes += kilobytes(&status, "RssAnon:") * 1024.0;
    }
    sum
}

/// Busy and kernel time of all cores.
fn machine() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal.
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else { return (0.0, 0.0) };
    let kernel = system + irq + softirq;
    ((user + nice + kernel + steal) / TICKS_PER_SECOND, kernel / TICKS_PER_SECOND)
}

/// TCP sockets, and the pages of their buffers.
fn sockets() -> (f64, f64) {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let fields: Vec<&str> = line.split_whitespace().collect();
    let value = |name: &str| {
        fields
            .chunks(2)
            .find(|pair| pair[0] == name)
            .and_then(|pair| pair.get(1)?.parse().ok())
            .unwrap_or(0.0)
    };
    (value("inuse"), value("mem"))
}

fn kernel_bytes() -> f64 {
    let kinds = ["Slab:", "KernelStack:", "PageTables:", "Percpu:"];
    kinds.into_iter().map(meminfo).sum::<f64>() + sockets().1 * PAGE_BYTES
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> f64 {
    kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), name) * 1024.0
}

fn kilobytes(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// How many files a process may have open: the hard limit.
pub fn open_files_max() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|hard| hard.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_alone() {
        let page = "# TYPE a gauge\na{shard=\"0\"} 3\na{shard=\"1\"} 4\na_total{shard=\"0\"} 9\na 1\n";
        assert_eq!(metric(page, "a"), 8);
        assert_eq!(metric(page, "a_total"), 9);
    }

    #[test]
    fn the_own_process_uses_something() {
        let own = [std::process::id()];
        let sample = Watch::start().look(&own, &[], &[u32::MAX]);
        assert!(
            sample.gateways.bytes > 0.0 && sample.available_bytes > 0.0 && sample.busy_s > 0.0,
            "{sample:?}"
        );
        assert_eq!((sample.routers.bytes, sample.load.bytes), (0.0, 0.0));
        assert!(open_files_max() > 0);
    }
}
