//! Cells that one row takes over from another, many at once.

use std::ops::Range;

use crate::event::row::{Row, RowBuilder, Slot};

impl RowBuilder {
    /// Gives the next columns the cells of another row at these places.
    ///
    /// # Panics
    /// When the other row has no such places, or both hold more than 4 GiB of text.
    pub(crate) fn push_cells_of(&mut self, other: &Row, places: Range<usize>) {
        let slots = &other.slots[places];
        let bounds = |slot: &Slot| match slot {
            Slot::Text { start, end } => Some((*start, *end)),
            _ => None,
        };
        // The texts of a row stand in the order of its columns, with nothing between them.
        let first = slots.iter().find_map(bounds).map_or(0, |(start, _)| start);
        let last = slots.iter().rev().find_map(bounds).map_or(0, |(_, end)| end);
        let shift = u32::try_from(self.texts.len()).expect("a row has no more text than its record has bytes");
        self.texts.push_str(&other.texts[first as usize..last as usize]);
        self.slots.extend(slots.iter().map(|slot| match slot {
            Slot::Text { start, end } => Slot::Text {
                start: start - first + shift,
                end: end - first + shift,
            },
            other => other.clone(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use crate::event::row::{Row, Value};

    #[test]
    fn copied_cells_are_those_of_the_other_row() {
        let text = |value: &str| Some(Value::Text(value.into()));
        let columns = [
            ("a", text("one")),
            ("b", Some(Value::Int(2))),
            ("c", None),
            ("d", text("four")),
            ("e", Some(Value::List(vec![text("five"), None]))),
            ("f", text("")),
        ];
        let other = Row::of(columns);
        for start in 0..=other.names().len() {
            for end in start..=other.names().len() {
                let mut row = Row::builder().value("own", Value::Text("text of its own".into()));
                for name in &other.names()[start..end] {
                    // Names and cells of a row are given in turn; a copied run has its names first.
                    assert!(row.name(name));
                }
                row.push_cells_of(&other, start..end);
                let row = row.finish();
                let copied: Vec<_> = row.columns().skip(1).collect();
                let expected: Vec<_> = other.columns().skip(start).take(end - start).collect();
                assert_eq!(copied, expected, "{start}..{end}");
                assert_eq!(row.text("own"), Some("text of its own"));
            }
        }
    }
}
