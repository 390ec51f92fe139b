//! Command lines that a user can paste into a shell.

use std::path::{Path, PathBuf};

/// How this program is called: by its name if it was found on the PATH, else by its full path.
pub fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if called.components().count() == 1 && !called.as_os_str().is_empty() {
        return quoted(&called);
    }
    std::env::current_exe().map_or_else(|_| "sailfish".into(), |path| quoted(&path))
}

/// A path for a POSIX shell.
pub fn quoted(path: &Path) -> String {
    quoted_text(&path.display().to_string())
}

/// A word for a POSIX shell.
pub fn quoted_text(text: &str) -> String {
    if !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@:=,".contains(&byte))
    {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_when_a_shell_would_split_it() {
        assert_eq!(quoted(Path::new("/opt/sail-fish/x_1")), "/opt/sail-fish/x_1");
        assert_eq!(quoted(Path::new("/my files/it's")), r"'/my files/it'\''s'");
    }
}
