//! Keys, as a terminal sends them.

/// A key that has an effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Up,
    Down,
    Left,
    Right,
    Escape,
    Letter(char),
    /// Ctrl-C, which is no signal to a terminal in raw mode.
    Interrupt,
}

/// The keys in one read. Unknown keys, and the rest of their sequences, are left out.
pub fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            // ECMA-48, and the keys of an application's keypad.
            (0x1b, [b'[' | b'O', sequence @ ..]) => {
                let end = sequence.iter().position(|byte| (0x40..=0x7e).contains(byte));
                let (parameters, last) =
                    end.map_or((sequence, None), |at| (&sequence[..at], Some(sequence[at])));
                rest = sequence.get(parameters.len() + 1..).unwrap_or_default();
                keys.extend(last.filter(|_| parameters.is_empty()).and_then(arrow));
            }
            (0x1b, _) => keys.push(Key::Escape),
            (0x03, _) => keys.push(Key::Interrupt),
            (letter, _) if letter.is_ascii_graphic() => keys.push(Key::Letter(char::from(*letter))),
            _ => {}
        }
    }
    keys
}

const fn arrow(last: u8) -> Option<Key> {
    match last {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        use Key::{Down, Escape, Interrupt, Left, Letter, Right, Up};
        let cases: [(&[u8], &[Key]); 9] = [
            (b"", &[]),
            (b"q", &[Letter('q')]),
            (b"\x1b", &[Escape]),
            (b"\x1b[A\x1b[B\x1bOC\x1bOD", &[Up, Down, Right, Left]),
            (b"\x03r", &[Interrupt, Letter('r')]),
            (b"\x1b[5~q", &[Letter('q')]),
            (b"\x1b[1;5Aq", &[Letter('q')]),
            (b"\x1b[", &[]),
            (b"\x00\xff\x80 \r", &[]),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(keys(bytes), wanted, "{bytes:?}");
        }
    }
}
