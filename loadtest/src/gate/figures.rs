//! The figures that are checked in, and what counts are worth beside them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How much of what each thing took when the file was last written, and with which compiler.
#[derive(Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) rustc: String,
    pub(super) counts: BTreeMap<String, u64>,
}

/// Up to this a count may differ.
const TOLERANCE: f64 = 0.15;
/// The same if the figures are those of another compiler.
const TOLERANCE_OTHER_COMPILER: f64 = 0.30;
/// So many may always be more or fewer: what is counted in ones is rounded, and a loop may go round once more.
const ALWAYS_TOLERATED: f64 = 1.0;

/// A comparison: for people, and whether it holds.
pub(super) struct Comparison {
    pub(super) text: String,
    pub(super) faults: Vec<String>,
}

impl Figures {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} does not hold figures", path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// What was counted now, beside what is recorded here.
    pub(super) fn compare(&self, now: &Figures) -> Comparison {
        let same_compiler = self.rustc == now.rustc;
        let tolerance = if same_compiler { TOLERANCE } else { TOLERANCE_OTHER_COMPILER };
        let (mut text, mut faults) = (String::new(), Vec::new());
        if !same_compiler {
            // Writing into a String does not fail.
            let _ = writeln!(
                text,
                "the figures are of {}, this is {}: {:.0} % of difference are let pass\n",
                self.rustc,
                now.rustc,
                tolerance * 100.0
            );
        }
        for (name, &count) in &now.counts {
            let Some(&recorded) = self.counts.get(name) else {
                faults.push(format!("{name}: {count}, and no figure to compare with"));
                continue;
            };
            let change = count as f64 / recorded as f64 - 1.0;
            let allowed = tolerance.max(ALWAYS_TOLERATED / recorded as f64);
            let remark = if change > allowed {
                faults.push(format!("{name}: {count}, {:.0} % more than {recorded}", change * 100.0));
                "  DEARER"
            } else if change < -allowed {
                "  cheaper: --update would keep it so"
            } else {
                ""
            };
            let _ = writeln!(text, "{recorded:>10} {count:>10} {:>+6.1} %  {name}{remark}", change * 100.0);
        }
        let gone = self.counts.keys().filter(|name| !now.counts.contains_key(*name));
        faults.extend(gone.map(|name| format!("{name}: has a figure, and was not counted")));
        Comparison { text, faults }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rustc: &str, counts: &[(&str, u64)]) -> Figures {
        let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Figures { rustc: rustc.to_owned(), counts }
    }

    #[test]
    fn what_became_dearer_fails_and_what_became_cheaper_is_said() {
        let recorded = figures("1", &[("a", 1000), ("b", 1000), ("c", 1000)]);
        let compared = recorded.compare(&figures("1", &[("a", 1140), ("b", 1160), ("c", 800)]));
        assert_eq!(compared.faults, ["b: 1160, 16 % more than 1000"]);
        assert!(compared.text.contains("-20.0 %  c  cheaper"), "{}", compared.text);
    }

    #[test]
    fn another_compiler_is_given_more_room() {
        let recorded = figures("1", &[("a", 1000)]);
        let compared = recorded.compare(&figures("2", &[("a", 1290)]));
        assert!(compared.faults.is_empty());
        assert!(compared.text.contains("of 1, this is 2"), "{}", compared.text);
        assert_eq!(recorded.compare(&figures("2", &[("a", 1310)])).faults.len(), 1);
    }

    #[test]
    fn one_of_a_few_is_let_pass_and_two_are_not() {
        let recorded = figures("1", &[("clock reads", 4)]);
        assert!(recorded.compare(&figures("1", &[("clock reads", 5)])).faults.is_empty());
        assert_eq!(recorded.compare(&figures("1", &[("clock reads", 6)])).faults.len(), 1);
    }

    #[test]
    fn both_sides_have_the_same_names() {
        let compared = figures("1", &[("old", 1)]).compare(&figures("1", &[("new", 1)]));
        assert_eq!(compared.faults.len(), 2, "{:?}", compared.faults);
    }
}
