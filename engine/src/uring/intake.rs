//! Receives that wait: for a buffer, or for the end of backpressure. The two groups of connections wait
//! apart, so that one goes on while the other is held.

use std::io;

use shard::{Instant, Shard};

use super::driver::Driver;
use super::group::Group;
use super::ring::Completion;

impl<S: Shard> Driver<S> {
    /// Whether something waits that need not.
    pub(super) fn has_intake(&self, group: Group) -> bool {
        let waits = !self.held[group].is_empty() || self.kernel.has_starved(group);
        waits && !self.is_pushed_back(group)
    }

    /// Takes in up to `count` receives that were held.
    pub(super) fn receive_held(&mut self, now: Instant, group: Group, count: usize) -> io::Result<()> {
        if self.is_pushed_back(group) {
            return Ok(());
        }
        for _ in 0..count {
            let Some(completion) = self.held[group].pop() else { break };
            self.on_receive(now, group, completion)?;
        }
        Ok(())
    }

    /// Takes in a receive, or holds it. A receive of a closing connection is not for the core, and does not
    /// wait.
    pub(super) fn receive_or_hold(
        &mut self,
        now: Instant,
        group: Group,
        completion: Completion,
    ) -> io::Result<()> {
        self.note_end(completion);
        let waits = self.is_pushed_back(group) || !self.held[group].is_empty();
        if waits
            && let Some(entry) = self.conns.get_mut(completion.token.conn())
            && entry.life.is_open()
        {
            if completion.result == 0 {
                entry.life.note_finish();
            }
            self.held[group].push(completion);
            return Ok(());
        }
        self.on_receive(now, group, completion)
    }

    /// Arms the receives that found no buffer; by now the core has seen the bytes, and the buffers are back.
    pub(super) fn receive_again(&mut self) -> io::Result<()> {
        for group in Group::ALL {
            if self.is_pushed_back(group) {
                self.forget_gone(group);
                continue;
            }
            if !self.held[group].is_empty() {
                continue;
            }
            for ring in 0..self.kernel.rings() {
                let mut armed = 0;
                while let Some(conn) = self.kernel.next_starved(ring, group, armed) {
                    self.receive(conn)?;
                    armed += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is read from the connections of `group`. Opened ones lead to peers that would be
    /// judged as silent.
    fn is_pushed_back(&self, group: Group) -> bool {
        group == Group::Accepted && (self.core_pushes_back || self.mail_waits)
    }

    /// Connections come and go while they are pushed back: forgets the gone ones before they outnumber the
    /// others.
    fn forget_gone(&mut self, group: Group) {
        let Self { held, conns, kernel, .. } = self;
        let held = &mut held[group];
        if kernel.starved(group) + held.ends() > 2 * conns.len() + 1 {
            kernel.retain_starved(group, |conn| conns.contains(conn));
            held.retain_ends(|conn| conns.contains(conn));
        }
    }
}
