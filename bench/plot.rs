//! A bar chart, as SVG: the median of each contestant, with a line from the least to the most.

use std::fmt::Write as _;

use crate::record::{Run, grouped, number, spread};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 250.0;
/// To the right of the longest bar, for its number.
const NUMBERS: f64 = 90.0;
const ROW: f64 = 24.0;
const HEAD: f64 = 44.0;

/// Of every case that has the figure.
pub(crate) fn bars(runs: &[Run], figure: &str, unit: &str) -> String {
    let mut rows = String::new();
    let mut y = 10.0;
    for (case, contestants) in grouped(runs) {
        let spreads: Vec<(&str, [f64; 3])> =
            contestants.iter().filter_map(|(name, runs)| Some((*name, spread(runs, figure)?))).collect();
        let most = spreads.iter().map(|(_, [_, _, most])| *most).fold(0.0, f64::max);
        if most == 0.0 {
            continue;
        }
        let scale = |value: f64| LABELS + value / most * (WIDTH - LABELS - NUMBERS);
        let _ = writeln!(rows, "<text x=\"10\" y=\"{}\" class=\"case\">{case}: {unit}</text>", y + 24.0);
        y += HEAD;
        for (name, [least, median, most]) in spreads {
            let middle = y + ROW / 2.0;
            let class = if name.starts_with("towpath") { "ours" } else { "other" };
            let _ = writeln!(
                rows,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
                 <rect x=\"{LABELS}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" class=\"{class}\"/>\
                 <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
                LABELS - 8.0,
                middle + 4.0,
                y + 3.0,
                scale(median) - LABELS,
                ROW - 6.0,
                scale(least),
                scale(most),
                scale(most) + 8.0,
                middle + 4.0,
                number(median),
            );
            y += ROW;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\">\n<style>text{{font:13px sans-serif}}.case{{font-weight:bold}}\
         .ours{{fill:#2a7f9e}}.other{{fill:#b9b9b9}}line{{stroke:#222;stroke-width:1.5}}</style>\n<rect width=\"100%\" height=\"100%\" \
         fill=\"#fff\"/>\n{rows}</svg>\n",
        y + 10.0
    )
}
