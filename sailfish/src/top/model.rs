//! The state of the screen: nodes, and the user's choices.

use std::time::Duration;

use super::columns::Column;
use super::keys::Key;
use super::rows::{Order, Row, Subject, rows};
use super::watched::Watched;

/// All that a screen shows.
pub struct Model {
    pub nodes: Vec<Watched>,
    pub order: Order,
    /// The node whose details are shown; `None`: all nodes.
    pub selected: Option<Subject>,
    /// How often nodes are asked.
    pub interval: Duration,
}

/// When a screen is drawn.
#[derive(Clone, Copy)]
pub struct Moment {
    /// Since the start.
    pub now: Duration,
    /// Since 1970.
    pub unix: Duration,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    GoOn,
    End,
}

impl Model {
    /// Nodes that have not been asked, in the order of their numbers.
    pub fn new(admins: impl IntoIterator<Item = String>, interval: Duration) -> Self {
        let order = Order { column: Column::Node, is_reversed: false };
        Self { nodes: admins.into_iter().map(Watched::new).collect(), order, selected: None, interval }
    }

    /// The rows in their order.
    pub fn rows(&self, moment: Moment) -> Vec<Row> {
        let mut rows = rows(&self.nodes, moment.unix);
        self.order.sort(&mut rows);
        rows
    }

    /// Takes a key of the user, who sees these rows and columns.
    pub fn press(&mut self, key: Key, rows: &[Row], columns: &[Column]) -> Next {
        match key {
            Key::Interrupt | Key::Letter('q' | 'Q') => return Next::End,
            Key::Up | Key::Letter('k') => self.select(rows, |at| at.checked_sub(1)),
            Key::Down | Key::Letter('j') => {
                self.select(rows, |at| Some((at + 1).min(rows.len().saturating_sub(1))));
            }
            Key::Escape => self.selected = None,
            Key::Left | Key::Letter('<' | 'h') => self.sort(columns, |at| at.checked_sub(1)),
            Key::Right | Key::Letter('>' | 'l') => self.sort(columns, |at| Some(at + 1)),
            Key::Letter('r') => self.order.is_reversed ^= true,
            Key::Letter(_) => {}
        }
        Next::GoOn
    }

    /// Selects another row. There is a position above the first one, from which both keys lead to the first.
    fn select(&mut self, rows: &[Row], to: impl Fn(usize) -> Option<usize>) {
        let at = rows.iter().position(|row| Some(row.subject) == self.selected);
        let to = at.map_or(Some(0), to);
        self.selected = to.and_then(|to| rows.get(to)).map(|row| row.subject);
    }

    /// Goes to another column, unless there is none.
    fn sort(&mut self, columns: &[Column], to: impl Fn(usize) -> Option<usize>) {
        // The column may have gone with the terminal's width.
        let at = columns.iter().position(|column| *column as usize >= self.order.column as usize);
        let at = at.unwrap_or(columns.len().saturating_sub(1));
        if let Some(column) = to(at).and_then(|to| columns.get(to)) {
            self.order = Order { column: *column, is_reversed: false };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { now: Duration::ZERO, unix: Duration::ZERO };

    fn pressed(model: &mut Model, keys: &[Key]) -> Next {
        let columns = [Column::Node, Column::State, Column::Cpu];
        let rows = model.rows(NOW);
        keys.iter().map(|key| model.press(*key, &rows, &columns)).next_back().unwrap()
    }

    #[test]
    fn keys_choose_a_node() {
        let mut model = Model::new(["a:1".into(), "b:1".into()], Duration::from_secs(1));
        for (keys, selected) in [
            (&[Key::Down][..], Some(Subject::Asked(0))),
            (&[Key::Letter('j')], Some(Subject::Asked(1))),
            (&[Key::Down], Some(Subject::Asked(1))),
            (&[Key::Up], Some(Subject::Asked(0))),
            (&[Key::Up], None),
            (&[Key::Up], Some(Subject::Asked(0))),
            (&[Key::Escape], None),
        ] {
            assert_eq!(pressed(&mut model, keys), Next::GoOn);
            assert_eq!(model.selected, selected, "{keys:?}");
        }
        model.selected = Some(Subject::Known(7)); // it has gone
        pressed(&mut model, &[Key::Down]);
        assert_eq!(model.selected, Some(Subject::Asked(0)));
    }

    #[test]
    fn keys_choose_the_order() {
        let mut model = Model::new(["a:1".into()], Duration::from_secs(1));
        for (key, column, is_reversed) in [
            (Key::Left, Column::Node, false),
            (Key::Right, Column::State, false),
            (Key::Letter('r'), Column::State, true),
            (Key::Right, Column::Cpu, false),
            (Key::Right, Column::Cpu, false),
            (Key::Letter('<'), Column::State, false),
        ] {
            pressed(&mut model, &[key]);
            assert_eq!(model.order, Order { column, is_reversed }, "{key:?}");
        }
        model.order.column = Column::Admin; // it does not fit any more
        pressed(&mut model, &[Key::Left]);
        assert_eq!(model.order.column, Column::State);
    }

    #[test]
    fn keys_end_it() {
        let mut model = Model::new([], Duration::from_secs(1));
        assert_eq!(pressed(&mut model, &[Key::Letter('x')]), Next::GoOn);
        assert_eq!(pressed(&mut model, &[Key::Down]), Next::GoOn, "of nothing");
        assert_eq!(pressed(&mut model, &[Key::Letter('q')]), Next::End);
        assert_eq!(pressed(&mut model, &[Key::Interrupt]), Next::End);
    }
}
