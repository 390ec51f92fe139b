//! UTF-8 that comes in pieces.

/// Checks a text that comes in pieces, and refuses it with the first byte that cannot be.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Utf8 {
    /// The character at the end of the last piece, as far as it has come.
    begun: [u8; 4],
    len: u8,
}

/// Bytes that are not UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl Utf8 {
    /// Takes the next piece.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.len > 0
            && let Some((&byte, rest)) = piece.split_first()
        {
            piece = rest;
            self.begun[usize::from(self.len)] = byte;
            let have = usize::from(self.len) + 1;
            match std::str::from_utf8(&self.begun[..have]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => self.len = have as u8,
                Err(_) => return Err(NotUtf8),
            }
        }
        if let Err(error) = std::str::from_utf8(piece) {
            if error.error_len().is_some() {
                return Err(NotUtf8);
            }
            let begun = &piece[error.valid_up_to()..];
            self.begun[..begun.len()].copy_from_slice(begun);
            self.len = begun.len() as u8;
        }
        Ok(())
    }

    /// The text ends here; a character that has only begun is none.
    pub(super) fn end(&mut self) -> Result<(), NotUtf8> {
        if std::mem::take(&mut self.len) == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes are taken before one is refused, byte by byte.
    fn refused_at(text: &[u8]) -> Option<usize> {
        let mut utf8 = Utf8::default();
        let at = text.iter().position(|byte| utf8.push(&[*byte]).is_err());
        at.or_else(|| utf8.end().is_err().then_some(text.len()))
    }

    #[test]
    fn a_text_is_right_or_wrong_however_it_is_split() {
        let texts: [&[u8]; 12] = [
            "".as_bytes(),
            "plain".as_bytes(),
            "ü € 😀 \u{10ffff}".as_bytes(),
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
            b"\xf4\x90\x80\x80",
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xff",
            b"a\x80",
            b"\xe2\x82",
            b"\xf0\x9f\x98",
        ];
        for text in texts {
            let right = std::str::from_utf8(text).is_ok();
            assert_eq!(refused_at(text).is_none(), right, "{text:x?}");
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let mut utf8 = Utf8::default();
                    let pieces = [&text[..first], &text[first..second], &text[second..]];
                    let outcome =
                        pieces.iter().try_for_each(|piece| utf8.push(piece)).and_then(|()| utf8.end());
                    assert_eq!(outcome.is_ok(), right, "{text:x?} split at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_become_right_is_refused_at_once() {
        assert_eq!(refused_at(b"\xce\xba\xed\xa0\x80edited"), Some(3));
        assert_eq!(refused_at(b"ab\xf4\x90\x80\x80"), Some(3));
        assert_eq!(refused_at(b"ab\xc0"), Some(2));
        assert_eq!(refused_at(b"ab\xe2\x82"), Some(4), "it ends too early");
    }
}
