//! When the processes of nodes began and ended.

use crate::network::Host;

#[derive(Default)]
pub(crate) struct Lives {
    /// In the order of their beginnings; no end while they run.
    of: Vec<(Host, u64, Option<u64>)>,
}

impl Lives {
    pub(crate) fn begin(&mut self, at: u64, host: Host) {
        self.of.push((host, at, None));
    }

    pub(crate) fn end(&mut self, at: u64, host: Host) {
        let runs = self.of.iter_mut().find(|(of, _, ended)| *of == host && ended.is_none());
        if let Some((_, _, ended)) = runs {
            *ended = Some(at);
        }
    }

    /// Whether one process of a node ran all that time.
    pub(crate) fn ran_throughout(&self, host: Host, from: u64, until: u64) -> bool {
        let is_it = |(of, began, ended): &(Host, u64, Option<u64>)| {
            *of == host && *began <= from && ended.is_none_or(|ended| ended > until)
        };
        self.of.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_began_or_ended_meanwhile_did_not_run_throughout() {
        let mut lives = Lives::default();
        lives.begin(10, 1);
        lives.begin(10, 2);
        lives.end(20, 1);
        lives.begin(30, 1);
        let ran = |host, from, until| lives.ran_throughout(host, from, until);
        assert!(ran(1, 10, 19) && ran(1, 30, 99) && ran(2, 10, 99));
        assert!(!ran(1, 9, 15) && !ran(1, 15, 20) && !ran(1, 15, 35) && !ran(1, 22, 25) && !ran(1, 22, 35));
    }
}
