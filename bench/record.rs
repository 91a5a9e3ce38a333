//! The results: every run as a line of data, and a table and a plot made of those lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Named numbers of one run; the name says the unit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Figures {
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        // As many digits as are worth it.
        let value = if value.abs() >= 100.0 { value.round() } else { (value * 100.0).round() / 100.0 };
        self.0.insert(name.into(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// One line of `runs.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// What was measured, in words.
    pub(crate) case: String,
    pub(crate) contestant: String,
    pub(crate) figures: Figures,
}

const DATA: &str = "runs.jsonl";

pub(crate) struct Results<'a> {
    pub(crate) folder: &'a Path,
    /// The machine, the versions, the settings.
    pub(crate) setting: String,
    pub(crate) runs: Vec<Run>,
}

impl Results<'_> {
    /// Earlier runs of other cases stay; those of `cases` are made anew.
    pub(crate) fn open<'a>(folder: &'a Path, setting: String, cases: &[String]) -> Result<Results<'a>, String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let text = fs::read_to_string(folder.join(DATA)).unwrap_or_default();
        let runs = text.lines().map(serde_json::from_str).collect::<Result<Vec<Run>, _>>();
        let mut runs = runs.map_err(|error| format!("{DATA}: {error}; remove it"))?;
        runs.retain(|run| !cases.contains(&run.case));
        Ok(Results { folder, setting, runs })
    }

    pub(crate) fn add(&mut self, run: Run) -> Result<(), String> {
        println!("{}", line(&run)?);
        self.runs.push(run);
        self.write()
    }

    fn write(&self) -> Result<(), String> {
        let write = |name: &str, text: String| {
            let path = self.folder.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        write(DATA, self.runs.iter().map(|run| Ok(line(run)? + "\n")).collect::<Result<String, String>>()?)?;
        write("table.md", self.table())?;
        write("rates.svg", crate::plot::bars(&self.runs, "events_per_second", "events per second"))
    }

    fn table(&self) -> String {
        let mut page =
            format!("# Benchmark\n\n{}\n\nMedian (least – most) of the runs; contestants took turns.\n", self.setting);
        for (case, contestants) in grouped(&self.runs) {
            let _ = write!(page, "\n## {case}\n\n");
            let names = figure_names(&contestants);
            let _ = writeln!(
                page,
                "| | runs | {} |",
                names.iter().map(|name| name.replace('_', " ")).collect::<Vec<_>>().join(" | ")
            );
            let _ = writeln!(page, "|---|---|{}", "---|".repeat(names.len()));
            for (contestant, runs) in contestants {
                let cells: Vec<String> = names.iter().map(|name| cell(&runs, name)).collect();
                let _ = writeln!(page, "| {contestant} | {} | {} |", runs.len(), cells.join(" | "));
            }
        }
        page
    }
}

fn line(run: &Run) -> Result<String, String> {
    serde_json::to_string(run).map_err(|error| error.to_string())
}

type Contestants<'a> = Vec<(&'a str, Vec<&'a Figures>)>;

/// By case, then by contestant, each in the order of first appearance.
pub(crate) fn grouped(runs: &[Run]) -> Vec<(&str, Contestants<'_>)> {
    let mut cases: Vec<(&str, Contestants<'_>)> = Vec::new();
    for run in runs {
        let case = entry(&mut cases, &run.case);
        entry(case, &run.contestant).push(&run.figures);
    }
    cases
}

fn entry<'v, 'a, T: Default>(list: &'v mut Vec<(&'a str, T)>, name: &'a str) -> &'v mut T {
    let at = list.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
        list.push((name, T::default()));
        list.len() - 1
    });
    &mut list[at].1
}

fn figure_names<'a>(contestants: &Contestants<'a>) -> Vec<&'a str> {
    // What it is about comes first.
    const FIRST: [&str; 9] = [
        "events_per_second",
        "p50_ms",
        "p99_ms",
        "p999_ms",
        "first_event_ms",
        "connector_cpu_s_per_million",
        "connector_cpu_percent",
        "idle_cpu_percent",
        "resident_mb",
    ];
    let mut names: Vec<&str> = Vec::new();
    for figures in contestants.iter().flat_map(|(_, runs)| runs) {
        names.extend(figures.0.keys().map(String::as_str));
    }
    names.sort_unstable_by_key(|name| (FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()), *name));
    names.dedup();
    names
}

fn cell(runs: &[&Figures], name: &str) -> String {
    match spread(runs, name) {
        None => "–".into(),
        Some([least, _, most]) if least == most => number(least),
        Some([least, median, most]) => format!("**{}** ({} – {})", number(median), number(least), number(most)),
    }
}

/// The least, the median and the most.
pub(crate) fn spread(runs: &[&Figures], name: &str) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = runs.iter().filter_map(|figures| figures.get(name)).collect();
    values.sort_unstable_by(f64::total_cmp);
    let (last, middle) = (values.len().checked_sub(1)?, values.len() / 2);
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Some([values[0], median, values[last]])
}

pub(crate) fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{}", (value * 100.0).round() / 100.0);
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(contestant: &str, rate: f64) -> Run {
        let mut figures = Figures::default();
        figures.set("events_per_second", rate);
        Run { case: "a case".into(), contestant: contestant.into(), figures }
    }

    #[test]
    fn a_table_has_the_median_and_the_spread_of_each_contestant() {
        let runs = vec![run("b", 40_000.4), run("a", 1.234), run("b", 50_000.0), run("b", 30_000.0)];
        let results = Results { folder: Path::new(""), setting: "here".into(), runs };
        let table = results.table();
        assert!(table.contains("| b | 3 | **40,000** (30,000 – 50,000) |\n| a | 1 | 1.23 |"), "{table}");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(
            spread(&[&runs_of(&[1.0, 2.0])[0], &runs_of(&[1.0, 2.0])[1]], "events_per_second"),
            Some([1.0, 1.5, 2.0])
        );
    }

    fn runs_of(rates: &[f64]) -> Vec<Figures> {
        rates.iter().map(|rate| run("", *rate).figures).collect()
    }
}
