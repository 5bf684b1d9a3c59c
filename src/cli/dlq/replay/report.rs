//! What became of the letters of a run, for people and for programs.

use serde::Serialize;

use crate::cli::dlq::counts_in_words;
use crate::cli::output::counted;
use crate::dead_letter::filter::Count;
use crate::dead_letter::runs::Fate;
use crate::dead_letter::state::short_id;

/// Letters that are named to people; JSON names all of them.
const NAMED_MAX: usize = 10;

/// A letter whose replay was buried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Again {
    pub(super) letter_id: String,
    /// What it left.
    pub(super) new_letters: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Number of the run; absent when nothing was to be done.
    pub(super) run: Option<i64>,
    pub(super) group: Option<String>,
    /// What would be sent back, by handler and class: with --dry-run only.
    pub(super) counts: Vec<Count>,
    pub(super) requested: usize,
    pub(super) replayed: Vec<String>,
    pub(super) failed_again: Vec<Again>,
    /// Letters whose replay has not ended.
    pub(super) waiting: Vec<String>,
    /// Letters that were not open any more.
    pub(super) passed_over: Vec<String>,
    /// Letters whose bytes nothing keeps any more: they stay open.
    pub(super) unreadable: Vec<String>,
    /// Letters whose events were replayed too often: they stay open.
    pub(super) held_back: Vec<String>,
    /// Letters that the run did not get to: they stay open until it is resumed.
    pub(super) left: Vec<String>,
    /// With --wait.
    pub(super) healed: Option<usize>,
    /// With --wait.
    pub(super) buried_again: Option<usize>,
}

impl Report {
    /// What became of the letters of a run.
    pub(super) fn of(run: i64, group: String, fates: Vec<Fate>, held_back: Vec<String>, waited: bool) -> Self {
        let mut report = Self {
            run: Some(run),
            group: Some(group),
            held_back,
            ..Self::default()
        };
        for Fate {
            letter_id,
            fate,
            new_letters,
        } in fates
        {
            match fate.as_str() {
                "done" => report.replayed.push(letter_id),
                "failed" => report.failed_again.push(Again { letter_id, new_letters }),
                "not_open" => report.passed_over.push(letter_id),
                "unreadable" => report.unreadable.push(letter_id),
                "left" => report.left.push(letter_id),
                _ => report.waiting.push(letter_id),
            }
        }
        report.requested = report.replayed.len() + report.failed_again.len() + report.waiting.len();
        if waited {
            report.healed = Some(report.replayed.len());
            report.buried_again = Some(report.failed_again.len());
        }
        report
    }
}

/// The same for people.
pub(super) fn in_words(report: &Report, is_dry_run: bool) -> String {
    if is_dry_run {
        let letters: i64 = report.counts.iter().map(|count| count.letters).sum();
        let said = counts_in_words(
            &format!("{} would be sent back", counted(letters, "letter")),
            &report.counts,
        );
        return said + &held_back(report);
    }
    let mut text = format!("{} requested", counted(report.requested, "replay"));
    let (healed, again, waiting) = (report.replayed.len(), report.failed_again.len(), report.waiting.len());
    if report.healed.is_some() || healed + again > 0 {
        text.push_str(&format!("; {healed} healed, {again} buried again"));
        if waiting > 0 {
            text.push_str(&format!(", {waiting} still waiting"));
        }
    }
    if !report.passed_over.is_empty() {
        let passed_over = report.passed_over.len();
        let (letters, were) = (counted(passed_over, "letter"), were(passed_over));
        text.push_str(&format!("; {letters} {were} not open and {were} passed over"));
    }
    if !report.unreadable.is_empty() {
        let letters = counted(report.unreadable.len(), "letter");
        text.push_str(&format!(
            "; nothing keeps {letters} any more: {}",
            named(&report.unreadable)
        ));
    }
    if !report.left.is_empty() {
        text.push_str(&format!("; {} left", counted(report.left.len(), "letter")));
    }
    for Again { letter_id, new_letters } in report.failed_again.iter().take(NAMED_MAX) {
        let new_letters = match new_letters.is_empty() {
            true => "a letter that is gone".to_owned(),
            false => named(new_letters),
        };
        text.push_str(&format!("\n{} was buried again as {new_letters}", short_id(letter_id)));
    }
    text + &held_back(report)
}

fn held_back(report: &Report) -> String {
    match report.held_back.len() {
        0 => String::new(),
        letters => format!(
            "\n{} {} replayed too often (dead_letters.replays_max) and left out: {}; give ids with --force",
            counted(letters, "letter"),
            were(letters),
            named(&report.held_back)
        ),
    }
}

fn were(count: usize) -> &'static str {
    match count {
        1 => "was",
        _ => "were",
    }
}

fn named(ids: &[String]) -> String {
    let mut names: Vec<String> = ids.iter().take(NAMED_MAX).map(|id| short_id(id).to_owned()).collect();
    let text = match ids.len().checked_sub(NAMED_MAX) {
        Some(more) if more > 0 => format!(" and {more} more"),
        _ => String::new(),
    };
    let last = names.pop().unwrap_or_default();
    names.push(last + &text);
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(letter_id: &str, fate: &str, new_letters: &[&str]) -> Fate {
        Fate {
            letter_id: letter_id.to_owned(),
            fate: fate.to_owned(),
            new_letters: new_letters.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    #[test]
    fn every_letter_of_a_run_is_counted_once() {
        let fates = vec![
            fate("a", "done", &[]),
            fate("b", "failed", &["b2"]),
            fate("c", "requested", &[]),
            fate("d", "taken", &[]),
            fate("e", "not_open", &[]),
            fate("f", "unreadable", &[]),
            fate("g", "left", &[]),
        ];
        let report = Report::of(1, "g".to_owned(), fates, vec!["h".to_owned()], true);
        assert_eq!(
            (report.requested, report.healed, report.buried_again),
            (4, Some(1), Some(1))
        );
        assert_eq!((report.waiting.len(), &*report.left[0]), (2, "g"));
        let words = in_words(&report, false);
        for part in [
            "4 replays requested; 1 healed, 1 buried again, 2 still waiting",
            "1 letter was not open and was passed over",
            "nothing keeps 1 letter any more: f",
            "; 1 letter left",
            "b was buried again as b2",
            "1 letter was replayed too often",
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }

    #[test]
    fn unreadable_letters_are_named_up_to_a_limit() {
        let report = Report {
            requested: 1,
            unreadable: (0..12).map(|number| format!("{number:016}")).collect(),
            ..Report::default()
        };
        let words = in_words(&report, false);
        assert!(
            words.contains("12 letters") && words.contains("000000000000,"),
            "{words}"
        );
        assert!(words.ends_with("and 2 more"), "{words}");
    }
}
