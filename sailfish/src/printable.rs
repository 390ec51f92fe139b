//! Text of others, made safe for a terminal and a log.

use std::borrow::Cow;
use std::fmt::Write;

/// Text of others on one line: characters that would move the cursor, change colours, end the line, or hide
/// or reverse the text beside them are written as escapes, like `\n` and `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_printable, |out, character| {
        let _ = write!(out, "{}", character.escape_default()); // a String takes everything
    })
}

/// The same of lines that are our own: they stay lines.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| character == '\n' || is_printable(character),
        |out, character| {
            let _ = write!(out, "{}", character.escape_default());
        },
    )
}

/// The same of JSON, which has escapes of its own and means the same with them.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| character == '\n' || is_printable(character),
        |out, character| {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        },
    )
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if text.chars().all(&is_kept) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_kept(character) {
            out.push(character);
        } else {
            escape(&mut out, character);
        }
    }
    Cow::Owned(out)
}

/// Whether a character only shows itself. Joiners do: emoji and scripts need them.
const fn is_printable(character: char) -> bool {
    !matches!(character,
        // Control characters, C0 and C1.
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        // Marks of direction.
        | '\u{61c}' | '\u{200e}' | '\u{200f}'
        // Ends of lines and paragraphs, changes of direction.
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        // Annotations, and characters that are never visible.
        | '\u{fff9}'..='\u{fffb}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_shows_itself_stays() {
        for text in ["", "hello, world", "grüß 你好 שלום مرحبا 👩‍👩‍👧 \u{301}", r"C:\n"]
        {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_does_something_else_is_written_as_an_escape() {
        for (text, wanted) in [
            ("\x1b]0;pwned\x07\x1b[2J", r"\u{1b}]0;pwned\u{7}\u{1b}[2J"),
            ("a\r\nb\tc", r"a\r\nb\tc"),
            ("\u{9b}31m\x7f", r"\u{9b}31m\u{7f}"),
            ("user\u{202e}nimda\u{2066}", r"user\u{202e}nimda\u{2066}"),
            ("a\u{2028}b\u{feff}", r"a\u{2028}b\u{feff}"),
        ] {
            assert_eq!(printable(text), wanted);
            assert_eq!(printable(&printable(text)), wanted, "once is enough");
        }
        assert_eq!(printable_lines("a\n\x1b[2Jb\n"), "a\n\\u{1b}[2Jb\n");
    }

    #[test]
    fn json_stays_the_same_json() {
        let text = "{\"a\":\"\u{9b}\u{202e}\u{e0001}\"}\n";
        let escaped = printable_json(text);
        assert_eq!(escaped, "{\"a\":\"\\u009b\\u202e\\udb40\\udc01\"}\n");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(text), read(&escaped));
    }
}
