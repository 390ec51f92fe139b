//! What the server's processes use, read from /proc.

use std::fs;

use anyhow::Context;

/// Reads the use of some processes.
pub(super) struct Meter<'a> {
    pids: &'a [u32],
    tick_us: f64,
}

impl<'a> Meter<'a> {
    /// A meter for `pids`; `None` when there is none.
    ///
    /// # Errors
    /// The process that is not there.
    pub(super) fn new(pids: &'a [u32]) -> anyhow::Result<Option<Self>> {
        if pids.is_empty() {
            return Ok(None);
        }
        let meter = Self { pids, tick_us: 1e6 / rustix::param::clock_ticks_per_second() as f64 };
        meter.cpu_us()?;
        Ok(Some(meter))
    }

    /// User and system time of all, from their start on, in us.
    pub(super) fn cpu_us(&self) -> anyhow::Result<f64> {
        let ticks = self.pids.iter().map(|pid| {
            let stat = read(*pid, "stat")?;
            ticks(&stat).with_context(|| format!("/proc/{pid}/stat: unexpected contents"))
        });
        Ok(ticks.sum::<anyhow::Result<u64>>()? as f64 * self.tick_us)
    }

    /// Resident memory of all, in bytes.
    pub(super) fn rss_bytes(&self) -> anyhow::Result<f64> {
        let kilobytes = self.pids.iter().map(|pid| {
            let status = read(*pid, "status")?;
            resident_kilobytes(&status).with_context(|| format!("/proc/{pid}/status: unexpected contents"))
        });
        Ok(kilobytes.sum::<anyhow::Result<u64>>()? as f64 * 1024.0)
    }
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("--server-pid {pid}: {path}"))
}

/// utime and stime: fields 14 and 15 of a stat line, whose second field may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn resident_kilobytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 70 8 0 0 20 0 3";
        assert_eq!(ticks(stat), Some(78));
        assert_eq!(resident_kilobytes("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1234));
    }

    #[test]
    fn the_own_process_can_be_read_and_none_is_an_error() {
        let own = [std::process::id()];
        let meter = Meter::new(&own).unwrap().unwrap();
        assert!(meter.cpu_us().unwrap() >= 0.0 && meter.rss_bytes().unwrap() > 100_000.0);
        assert!(Meter::new(&[]).unwrap().is_none());
        assert!(Meter::new(&[u32::MAX]).is_err());
    }
}
