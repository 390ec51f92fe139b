//! What the checks need to know of Rust's text, and no more: where its comments and strings are.

/// The text with its comments, strings and characters blanked. Lines and columns stay where they are.
pub fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal(rest, code.chars().last());
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// The part of a file before its unit tests. A line that only says in which file they are ends nothing.
pub fn without_unit_tests(text: &str) -> &str {
    const TESTS: &str = "\n#[cfg(test)]\nmod ";
    let is_block = |at: &usize| {
        let line = text[at + TESTS.len()..].lines().next();
        line.is_some_and(|line| line.contains('{'))
    };
    let start = text.match_indices(TESTS).map(|(at, _)| at).find(is_block);
    &text[..start.unwrap_or(text.len())]
}

/// How many bytes of the text's beginning are a comment, a string or a character.
fn literal(text: &str, before: Option<char>) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    let is_word = before.is_some_and(|char| char.is_alphanumeric() || char == '_');
    if !is_word && (text.starts_with('r') || text.starts_with("br")) {
        let hashes = text.trim_start_matches('b')[1..].bytes().take_while(|byte| *byte == b'#').count();
        let open = text.find('r').expect("it begins with one") + 1 + hashes;
        if text[open..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            return text[open + 1..].find(&close).map_or(text.len(), |end| open + 1 + end + close.len());
        }
    }
    match text.as_bytes()[0] {
        b'"' => quoted(text, b'"'),
        // A lifetime has no second quote behind its first letter.
        b'\'' if text[1..].starts_with('\\') || text[1..].chars().nth(1) == Some('\'') => quoted(text, b'\''),
        _ => 0,
    }
}

/// The length of what begins with a quote and ends with the next one that has no backslash before it.
fn quoted(text: &str, quote: u8) -> usize {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if byte == quote {
            return at + 1;
        }
    }
    text.len()
}

#[test]
fn comments_and_strings_are_no_code() {
    let same = ["fn f<'a>(x: &'a str) -> char { x }", "br_tree(r, b)"];
    for text in same {
        assert_eq!(code(text), text);
    }
    let blanked =
        ["\"a\\\"{b\"", "r#\"x\"{\"#", "'{'", "'\\''", "// crate::a", "/* a\n{ */", "b\"{\"", "br\"{\""];
    for text in blanked {
        assert!(code(text).chars().all(|char| char.is_whitespace() || char == 'b'), "{text}: {}", code(text));
        assert_eq!(code(text).len(), text.len());
    }
    assert_eq!(
        without_unit_tests("a\n#[cfg(test)]\nuse b;\nc\n#[cfg(test)]\nmod tests {}\n"),
        "a\n#[cfg(test)]\nuse b;\nc"
    );
    assert_eq!(
        without_unit_tests("a\n#[cfg(test)]\nmod tests;\nuse b;"),
        "a\n#[cfg(test)]\nmod tests;\nuse b;"
    );
}
