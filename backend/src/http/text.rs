//! Texts that people write.

use crate::error::Error;

/// A text for `field` without white space around it: at most `chars_max` characters, none of them a control
/// character.
pub fn line(field: &str, text: &str, chars_max: usize) -> Result<String, Error> {
    let text = text.trim();
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(Error::bad_request(format!("{field}: want at most {chars_max} characters, not {chars}")));
    }
    match text.chars().find(|char| char.is_control()) {
        Some(control) => {
            let code = u32::from(control);
            Err(Error::bad_request(format!("{field}: want no control characters, such as U+{code:04X}")))
        }
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_script_is_a_text_and_control_characters_are_none() {
        for text in ["李雷", "🐟🎁", "' OR 1=1; --", "a", "", "%_\\"] {
            assert_eq!(line("name", text, 32).unwrap(), text);
        }
        assert_eq!(line("name", "  a b ", 3).unwrap(), "a b");
        assert_eq!(line("name", &"🐟".repeat(32), 32).unwrap(), "🐟".repeat(32));
        for text in ["a\0b", "a\nb", "\u{1b}[2J", "\u{7f}", "a\u{85}b"] {
            let error = line("name", text, 32).unwrap_err();
            assert!(error.message.starts_with("name: want no control characters"), "{error}");
        }
        assert_eq!(
            line("name", &"🐟".repeat(33), 32).unwrap_err().message,
            "name: want at most 32 characters, not 33"
        );
    }
}
