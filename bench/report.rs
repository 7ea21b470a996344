//! Figures of many runs into one table: medians, spread, and ratios side by side.

use std::fmt::Write as _;

use crate::scenarios::{Better, Column, Scenario};
use crate::servers::Server;

/// All runs of one scenario.
pub(crate) struct Table {
    pub(crate) scenario: Scenario,
    /// What the load was, in words.
    pub(crate) load: String,
    pub(crate) servers: Vec<Server>,
    /// `figures[server][round][column]`.
    pub(crate) figures: Vec<Vec<Vec<f64>>>,
    /// Things a reader must know before believing a figure.
    pub(crate) warnings: Vec<String>,
}

impl Table {
    /// The table as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let columns = self.scenario.columns();
        let mut out = String::new();
        let _ = writeln!(out, "\n## {}: {}\n", self.scenario.name(), self.load);
        for warning in &self.warnings {
            let _ = writeln!(out, "**WARNING: {warning}**\n");
        }
        self.write_figures(&mut out, &columns);
        for (index, column) in columns.iter().enumerate() {
            if column.compare {
                self.write_ratios(&mut out, index, column);
            }
        }
        out
    }

    fn write_figures(&self, out: &mut String, columns: &[Column]) {
        let _ = write!(out, "| server | runs |");
        for column in columns {
            let arrow = if column.better == Better::Lower { "less" } else { "more" };
            let hint = if column.compare { format!(" ({arrow} is better)") } else { String::new() };
            let _ = write!(out, " {}{hint} |", column.name);
        }
        let _ = writeln!(out, "\n|---|---{}|", "|---".repeat(columns.len()));
        for (server, rounds) in self.servers.iter().zip(&self.figures) {
            let _ = write!(out, "| {} | {} |", server.name(), rounds.len());
            for (index, column) in columns.iter().enumerate() {
                let values = values_of(rounds, index);
                let _ = write!(out, " {} |", spread(&values, column.digits));
            }
            let _ = writeln!(out);
        }
    }

    /// Every server against every other: the median over rounds of the ratio within a round.
    fn write_ratios(&self, out: &mut String, index: usize, column: &Column) {
        let _ = write!(out, "\nRatio of {}, row to column:\n\n| |", column.name);
        for server in &self.servers {
            let _ = write!(out, " {} |", server.name());
        }
        let _ = writeln!(out, "\n|---{}|", "|---".repeat(self.servers.len()));
        for row in &self.servers {
            let _ = write!(out, "| {} |", row.name());
            for against in &self.servers {
                match self.ratio(*row, *against, index) {
                    Some(ratio) if row != against => {
                        let _ = write!(out, " {ratio:.2} |");
                    }
                    _ => {
                        let _ = write!(out, " |");
                    }
                }
            }
            let _ = writeln!(out);
        }
    }

    /// The median over rounds of one server's figure over another's in the same round: what
    /// drifts on a shared machine drifts for both.
    pub(crate) fn ratio(&self, row: Server, against: Server, column: usize) -> Option<f64> {
        let rounds = |server| {
            let position = self.servers.iter().position(|each| *each == server)?;
            Some(&self.figures[position])
        };
        let ratios: Vec<f64> = rounds(row)?
            .iter()
            .zip(rounds(against)?)
            .map(|(upper, lower)| upper[column] / lower[column])
            .filter(|ratio| ratio.is_finite())
            .collect();
        median(&ratios)
    }

    /// The median of one figure.
    pub(crate) fn figure(&self, server: Server, column: usize) -> Option<f64> {
        let position = self.servers.iter().position(|each| *each == server)?;
        median(&values_of(&self.figures[position], column))
    }
}

fn values_of(rounds: &[Vec<f64>], column: usize) -> Vec<f64> {
    rounds.iter().map(|figures| figures[column]).filter(|value| value.is_finite()).collect()
}

/// The middle value; the mean of the two middle ones of an even count.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// `median (min..max)`.
fn spread(values: &[f64], digits: usize) -> String {
    let Some(middle) = median(values) else { return "n/a".to_owned() };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let number = |value| grouped(value, digits);
    format!("{} ({}..{})", number(middle), number(least), number(most))
}

/// A number with its thousands apart.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((&*text, None), |(w, f)| (w, Some(f)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |rest| ("-", rest));
    let mut out = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_even_count_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(-123.4, 1), "-123.4");
    }
}
