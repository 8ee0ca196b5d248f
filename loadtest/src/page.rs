//! A run as one HTML page with plots: everything in the file, nothing fetched.
//!
//! Promises: it opens anywhere, also from a disk without a network; texts are escaped; the numbers are those of the
//! tables. The plots are SVG inside the page.

use std::fmt::Write;

use anyhow::Result;
use plotters::prelude::*;

use crate::outcome::Outcome;
use crate::report::{self, Report};

const WIDTH: u32 = 860;
const CURVE_HEIGHT: u32 = 340;
const BAR_HEIGHT: u32 = 24;
const FLOOR_COLOUR: RGBColor = RGBColor(140, 140, 140);
const NCHAN_COLOUR: RGBColor = RGBColor(214, 126, 44);
const TIDINGS_COLOUR: RGBColor = RGBColor(31, 111, 178);

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;font-size:13px;margin:1rem 0;display:block;overflow-x:auto}\
th,td{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;white-space:nowrap}\
.missed,.failed{color:#b00020;font-weight:600}.bar,.moonshot{color:#18703a;font-weight:600}\
svg{max-width:100%;height:auto}h2{margin-top:2.2rem}small{color:#666}";

pub fn page(report: &Report) -> Result<String> {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Tidings under load</title><style>{STYLE}</style><h1>Tidings under load</h1><p>{}<br><small>{}</small></p>",
        escape(&report.command),
        escape(&report.machine)
    );
    if report.faults > 0 {
        write!(
            html,
            "<p class=\"failed\">{} faults: this run failed.</p>",
            report.faults
        )?;
    }
    let rows = report.measured_rows();
    if !rows.is_empty() {
        html += "<h2>Rows of TARGETS.md</h2>";
        html += &table(
            &report::ROW_HEAD,
            rows.iter().map(|row| report::row_cells(row)),
        );
    }
    let cost = |outcome: &Outcome| outcome.cpu_us_per_delivery;
    html += &bars("CPU of the server per delivery, µs", &report.outcomes, cost)?;
    let memory = |outcome: &Outcome| outcome.pss_kib_per_connection;
    html += &bars(
        "Memory per connection, KiB of PSS",
        &report.outcomes,
        memory,
    )?;
    for scenario in scenarios_with_latency(&report.outcomes) {
        html += &curve(scenario, &report.outcomes)?;
    }
    html += "<h2>All measurements</h2>";
    html += &table(
        &report::OUTCOME_HEAD,
        report.outcomes.iter().map(report::outcome_cells),
    );
    html += "<ul>";
    for outcome in &report.outcomes {
        let line = format!("{} {}: {}", outcome.scenario, outcome.peer, outcome.note);
        write!(html, "<li>{}", escape(&line))?;
        for example in &outcome.examples {
            write!(
                html,
                "<br><span class=\"failed\">{}</span>",
                escape(example)
            )?;
        }
        html += "</li>";
    }
    html += "</ul></html>\n";
    Ok(html)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut html = "<table><tr>".to_owned();
    for cell in head {
        html += &format!("<th>{}</th>", escape(cell));
    }
    for row in rows {
        html += "</tr><tr>";
        for cell in row {
            let class = match cell.as_str() {
                word @ ("missed" | "bar" | "moonshot") => format!(" class=\"{word}\""),
                _ => String::new(),
            };
            html += &format!("<td{class}>{}</td>", escape(&cell));
        }
    }
    html + "</tr></table>"
}

fn colour(peer: &str) -> RGBColor {
    match peer {
        "floor" => FLOOR_COLOUR,
        "nchan" => NCHAN_COLOUR,
        _ => TIDINGS_COLOUR,
    }
}

/// Horizontal bars, one for each outcome that has the value.
fn bars(
    title: &str,
    outcomes: &[Outcome],
    value: impl Fn(&Outcome) -> Option<f64>,
) -> Result<String> {
    let measured = outcomes
        .iter()
        .filter_map(|outcome| Some((outcome, value(outcome)?)));
    let measured: Vec<(&Outcome, f64)> = measured.collect();
    let Some(most) = measured
        .iter()
        .map(|(_, value)| *value)
        .max_by(f64::total_cmp)
    else {
        return Ok(String::new());
    };
    const LABEL_WIDTH: i32 = 260;
    const VALUE_WIDTH: i32 = 80;
    let full = WIDTH as i32 - LABEL_WIDTH - VALUE_WIDTH;
    let mut svg = String::new();
    {
        let height = BAR_HEIGHT * measured.len() as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        for (index, (outcome, value)) in measured.iter().enumerate() {
            let top = index as i32 * BAR_HEIGHT as i32;
            let length = (f64::from(full) * value / most.max(f64::MIN_POSITIVE)) as i32;
            let corners = [
                (LABEL_WIDTH, top + 4),
                (LABEL_WIDTH + length.max(1), top + 20),
            ];
            area.draw(&Rectangle::new(corners, colour(&outcome.peer).filled()))?;
            let label = format!("{} · {}", outcome.scenario, outcome.peer);
            let font = ("sans-serif", 14).into_font().color(&BLACK);
            area.draw(&Text::new(label, (4, top + 4), font.clone()))?;
            let number = report::number(Some(*value));
            area.draw(&Text::new(
                number,
                (LABEL_WIDTH + length.max(1) + 6, top + 4),
                font,
            ))?;
        }
        area.present()?;
    }
    Ok(format!("<h2>{}</h2>{svg}", escape(title)))
}

fn scenarios_with_latency(outcomes: &[Outcome]) -> Vec<&str> {
    let mut names = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.latency.is_some()) {
        if !names.contains(&outcome.scenario.as_str()) {
            names.push(outcome.scenario.as_str());
        }
    }
    names
}

/// Latency over percentile, both on logarithmic scales: one more nine is one step to the right.
fn curve(scenario: &str, outcomes: &[Outcome]) -> Result<String> {
    const NINES_MAX: f64 = 10_000.0;
    let lines: Vec<(&str, Vec<(f64, f64)>)> = outcomes
        .iter()
        .filter(|outcome| outcome.scenario == scenario)
        .filter_map(|outcome| {
            let curve = &outcome.latency.as_ref()?.curve;
            let points = curve.iter().map(|(percentile, us)| {
                let nines = 1.0 / (1.0 - percentile / 100.0).max(1.0 / NINES_MAX);
                (nines, us.max(1.0))
            });
            Some((outcome.peer.as_str(), points.collect()))
        })
        .collect();
    let all = || {
        lines
            .iter()
            .flat_map(|(_, points)| points)
            .map(|(_, us)| *us)
    };
    let least = all().min_by(f64::total_cmp).unwrap_or(1.0) / 1.5;
    let most = all().max_by(f64::total_cmp).unwrap_or(1.0) * 1.5;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, CURVE_HEIGHT)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .build_cartesian_2d((1.0..NINES_MAX).log_scale(), (least..most).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("µs")
            .x_label_formatter(&|nines| format!("{}", 100.0 - 100.0 / nines))
            .y_label_formatter(&|us| format!("{us:.0}"))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (peer, points) in &lines {
            let colour = colour(peer);
            chart
                .draw_series(LineSeries::new(
                    points.iter().copied(),
                    colour.stroke_width(2),
                ))?
                .label(*peer)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled())
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        area.present()?;
    }
    Ok(format!("<h2>Latency: {}</h2>{svg}", escape(scenario)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Latency;

    #[test]
    fn the_page_holds_everything_and_fetches_nothing() {
        let mut outcome = Outcome::new("fanout", "tidings");
        outcome.cpu_us_per_delivery = Some(2.5);
        outcome.pss_kib_per_connection = Some(1.25);
        outcome.note = "a <b> & c".to_owned();
        outcome.figure("1", Some(1.25));
        let mut histogram = crate::readers::histogram().unwrap();
        histogram.record(1_500_000).unwrap();
        outcome.latency = Latency::of(&histogram);
        let report = Report::new("here".to_owned(), "loadtest all".to_owned(), vec![outcome]);
        let html = page(&report).unwrap();
        assert_eq!(html.matches("<svg").count(), 3);
        assert!(html.contains("a &lt;b&gt; &amp; c"));
        assert!(html.contains("<td class=\"bar\">bar</td>"));
        for fetched in ["src=", "href=", "url(", "@import"] {
            assert!(!html.contains(fetched), "{fetched}");
        }
    }
}
