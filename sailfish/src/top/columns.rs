//! The columns of the table of nodes.

use super::units;

/// The blanks between columns.
pub const GAP: usize = 1;
/// How many readings a trend shows.
pub const TREND_WIDTH: usize = 12;

/// A column, in the order on the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    Node,
    Role,
    State,
    Connections,
    Sessions,
    Rooms,
    In,
    Out,
    Median,
    Slowest,
    Drops,
    Queued,
    Cpu,
    Rss,
    Files,
    Uptime,
    Trend,
    Admin,
}

/// How the numbers of a column are written.
#[derive(Clone, Copy)]
enum Unit {
    None,
    Count,
    Bytes,
    Seconds,
    Percent,
    Age,
}

impl Column {
    /// How many there are.
    pub const COUNT: usize = Self::Admin as usize + 1;
    /// All of them, in their order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Node,
        Self::Role,
        Self::State,
        Self::Connections,
        Self::Sessions,
        Self::Rooms,
        Self::In,
        Self::Out,
        Self::Median,
        Self::Slowest,
        Self::Drops,
        Self::Queued,
        Self::Cpu,
        Self::Rss,
        Self::Files,
        Self::Uptime,
        Self::Trend,
        Self::Admin,
    ];
    /// By importance; a narrow terminal drops the last ones first.
    const BY_WORTH: [Self; Self::COUNT] = [
        Self::Node,
        Self::Role,
        Self::State,
        Self::Connections,
        Self::In,
        Self::Out,
        Self::Slowest,
        Self::Cpu,
        Self::Rss,
        Self::Drops,
        Self::Sessions,
        Self::Rooms,
        Self::Median,
        Self::Queued,
        Self::Trend,
        Self::Uptime,
        Self::Admin,
        Self::Files,
    ];

    const fn layout(self) -> (&'static str, usize, Unit) {
        match self {
            Self::Node => ("NODE", 4, Unit::None),
            Self::Role => ("ROLE", 7, Unit::None),
            Self::State => ("STATE", 9, Unit::None),
            Self::Connections => ("CONNS", 5, Unit::Count),
            Self::Sessions => ("SESS", 5, Unit::Count),
            Self::Rooms => ("ROOMS", 5, Unit::Count),
            Self::In => ("IN/s", 5, Unit::Count),
            Self::Out => ("OUT/s", 5, Unit::Count),
            Self::Median => ("P50", 6, Unit::Seconds),
            Self::Slowest => ("P99", 6, Unit::Seconds),
            Self::Drops => ("DROP/s", 6, Unit::Count),
            Self::Queued => ("QUEUED", 6, Unit::Bytes),
            Self::Cpu => ("CPU", 5, Unit::Percent),
            Self::Rss => ("RSS", 5, Unit::Bytes),
            Self::Files => ("FILES", 5, Unit::Count),
            Self::Uptime => ("UP", 4, Unit::Age),
            Self::Trend => ("IN, TREND", TREND_WIDTH, Unit::None),
            Self::Admin => ("ADMIN", 15, Unit::None),
        }
    }

    /// Its title.
    pub const fn title(self) -> &'static str {
        self.layout().0
    }

    /// Its width in characters, unless its texts need more.
    pub const fn width(self) -> usize {
        self.layout().1
    }

    /// Whether it has words, which are aligned to the left.
    pub const fn has_words(self) -> bool {
        matches!(self.layout().2, Unit::None)
    }

    /// A number as the column shows it.
    pub fn number(self, value: Option<f64>) -> String {
        let Some(value) = value else { return "-".into() };
        match self.layout().2 {
            Unit::None => String::new(),
            Unit::Count => units::count(value),
            Unit::Bytes => units::bytes(value),
            Unit::Seconds => units::seconds(value),
            Unit::Percent => units::percent(value),
            Unit::Age => units::age(value),
        }
    }

    /// The most important columns that fit into `characters`, in order. `width` gives their widths.
    pub fn fitting(characters: usize, width: impl Fn(Self) -> usize) -> Vec<Self> {
        let mut left = characters + GAP;
        let mut chosen = Vec::new();
        for column in Self::BY_WORTH {
            let Some(rest) = left.checked_sub(width(column) + GAP) else { break };
            left = rest;
            chosen.push(column);
        }
        chosen.sort_by_key(|column| *column as usize);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_has_its_place_in_both_orders() {
        let mut by_worth = Column::BY_WORTH;
        by_worth.sort_by_key(|column| *column as usize);
        assert_eq!(by_worth, Column::ALL);
        assert!(Column::ALL.iter().enumerate().all(|(at, column)| *column as usize == at));
        assert!(Column::ALL.iter().all(|column| column.title().len() <= column.width()));
    }

    #[test]
    fn eighty_characters_hold_what_matters() {
        let fitting = Column::fitting(80, Column::width);
        assert_eq!(fitting.len(), 12, "{fitting:?}");
        assert!(fitting.contains(&Column::Rss) && !fitting.contains(&Column::Median));
        let all = Column::ALL.iter().map(|column| column.width() + GAP).sum::<usize>() - GAP;
        assert_eq!(Column::fitting(all, Column::width), Column::ALL);
        assert_eq!(Column::fitting(all - 1, Column::width).len(), Column::COUNT - 1);
        assert_eq!(Column::fitting(4, Column::width), [Column::Node]);
        assert_eq!(Column::fitting(0, Column::width), []);
    }
}
