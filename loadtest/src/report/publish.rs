//! `docs/performance.md`: its table and its plot, out of a report, so that nobody copies figures by hand.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::{Report, targets};

#[derive(Args, Debug)]
pub struct PublishArgs {
    /// What a run has written
    #[arg(long, default_value = "loadtest/out/report.json")]
    report: PathBuf,
    /// The page with the table
    #[arg(long, default_value = "docs/performance.md")]
    page: PathBuf,
    /// The plot beside it
    #[arg(long, default_value = "docs/performance.svg")]
    plot: PathBuf,
}

const BEGIN: &str = "<!-- from here on written by scripts/bench -->\n";
const END: &str = "<!-- up to here -->\n";

pub fn run(args: &PublishArgs) -> Result<()> {
    let text = fs::read_to_string(&args.report).with_context(|| format!("read {}", args.report.display()))?;
    let report: Report = serde_json::from_str(&text).with_context(|| args.report.display().to_string())?;
    let page = fs::read_to_string(&args.page).with_context(|| format!("read {}", args.page.display()))?;
    let table = targets::table(&report);
    let page = replaced(&page, &table).with_context(|| format!("{} has no place for it", args.page.display()))?;
    fs::write(&args.page, page).with_context(|| format!("write {}", args.page.display()))?;
    fs::write(&args.plot, targets::plot(&report)?).with_context(|| format!("write {}", args.plot.display()))?;
    print!("{table}");
    Ok(())
}

/// The page with other text between the two marks.
fn replaced(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_the_table_stays() {
        let page = format!("# Performance\n{BEGIN}old{END}The limit\n");
        let again = replaced(&page, "new").unwrap();
        assert_eq!(again, format!("# Performance\n{BEGIN}\nnew\n{END}The limit\n"));
        assert_eq!(replaced(&again, "new").unwrap(), again);
        assert_eq!(replaced("# Performance", "new"), None);
    }
}
