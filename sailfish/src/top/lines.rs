//! Lines of a screen, with styles.

/// How a piece of a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    Plain,
    Strong,
    Quiet,
    Good,
    Warning,
    Bad,
    /// A title of a column.
    Title,
    /// The title of the column that rows are sorted by.
    SortTitle,
    /// The row that is selected.
    Selected,
}

impl Style {
    /// The parameters of the terminal's escape sequence (ECMA-48, SGR).
    const fn parameters(self, has_colours: bool) -> &'static str {
        match (self, has_colours) {
            (Self::Plain, _) => "0",
            (Self::Strong, _) => "0;1",
            (Self::Quiet, _) => "0;2",
            (Self::Good, true) => "0;32",
            (Self::Good, false) => "0",
            (Self::Warning, true) => "0;33",
            (Self::Bad, true) => "0;31",
            (Self::Warning | Self::Bad, false) => "0;1",
            (Self::Title, _) => "0;7",
            (Self::SortTitle, true) => "0;1;7;36",
            (Self::SortTitle, false) => "0;1;4;7",
            (Self::Selected, _) => "0;7",
        }
    }
}

/// A line of a screen.
#[derive(Clone, Default)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// A line of one piece.
    pub fn of(style: Style, text: impl Into<String>) -> Self {
        Self(vec![(style, text.into())])
    }

    /// Adds a piece.
    pub fn push(&mut self, style: Style, text: impl Into<String>) {
        self.0.push((style, text.into()));
    }

    /// Adds blanks of a style until the line has this many characters.
    pub fn fill(&mut self, style: Style, characters: usize) {
        let missing = characters.saturating_sub(self.width());
        self.push(style, " ".repeat(missing));
    }

    /// How many characters it has.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// The line for a terminal, cut at this many characters.
    pub fn painted(&self, characters: usize, has_colours: bool) -> String {
        let (mut out, mut left) = (String::new(), characters);
        for (style, text) in &self.0 {
            let piece: String = text.chars().take(left).collect();
            left -= piece.chars().count();
            if !piece.is_empty() {
                out.push_str(&format!("\x1b[{}m{piece}", style.parameters(has_colours)));
            }
        }
        out + "\x1b[0m"
    }

    /// The line without styles.
    pub fn plain(&self) -> String {
        let text: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_at_the_edge() {
        let mut line = Line::of(Style::Strong, "ab▁");
        line.push(Style::Bad, "cd");
        assert_eq!(line.painted(80, true), "\x1b[0;1mab▁\x1b[0;31mcd\x1b[0m");
        assert_eq!(line.painted(4, true), "\x1b[0;1mab▁\x1b[0;31mc\x1b[0m");
        assert_eq!(line.painted(3, true), "\x1b[0;1mab▁\x1b[0m");
        assert_eq!(line.painted(0, true), "\x1b[0m");
        assert!(!line.painted(80, false).contains("31"), "no colour");
        line.fill(Style::Plain, 7);
        assert_eq!((line.width(), line.plain().as_str()), (7, "ab▁cd"));
    }
}
