//! What happened, as a hash and, if wanted, as lines.

/// The hash of everything that happened, with its time; and the lines of a run that is read.
pub(crate) struct Trace {
    hash: u64,
    lines: Option<fn(&str)>,
}

impl Trace {
    pub(crate) fn new(lines: Option<fn(&str)>) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether somebody reads lines.
    pub(crate) fn is_read(&self) -> bool {
        self.lines.is_some()
    }

    /// Takes in numbers: the kind of event first.
    pub(crate) fn mix<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    /// Takes in bytes.
    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix([u64::from_le_bytes(*word)]));
        rest.iter().for_each(|byte| self.mix([u64::from(*byte)]));
    }

    /// Says a line, if this run is read.
    pub(crate) fn line(&self, at_ns: u64, text: impl FnOnce() -> String) {
        if let Some(says) = self.lines {
            says(&format!("{:>12.6} {}", at_ns as f64 / 1e9, text()));
        }
    }
}
