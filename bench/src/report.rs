//! The results, for people, for machines and as a picture.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::{
    control::Figure,
    goals::{GOALS, Reached},
    packets::Measured,
    rounds::median,
};

/// One subject's nanoseconds for a packet.
struct Row {
    name: &'static str,
    what: &'static str,
    median: f64,
    least: f64,
    most: f64,
}

/// Prints what there is, and writes `bench.json` and `bench.svg` into a directory.
pub(crate) fn write(
    directory: &Path,
    packets: Option<&Measured>,
    control: &[Figure],
) -> Result<()> {
    let machine = machine();
    println!("{}\n", machine.as_str().unwrap_or_default());
    let rows = packets.map(rows).unwrap_or_default();
    let reached: Vec<Reached> = packets
        .map(|measured| {
            GOALS
                .iter()
                .filter_map(|goal| goal.reached(&measured.rounds))
                .collect()
        })
        .unwrap_or_default();
    if let Some(measured) = packets {
        let mut costs = table(&["packets", "", "ns>", "min>", "max>", "Mpps>"]);
        for row in &rows {
            costs.add_row([
                row.name.to_owned(),
                row.what.to_owned(),
                format!("{:.0}", row.median),
                format!("{:.0}", row.least),
                format!("{:.0}", row.most),
                format!("{:.2}", 1e3 / row.median),
            ]);
        }
        println!("{}\n", costs.trim_fmt());
        let mut ratios = table(&["ratio", "must · aim", "median>", "min>", "max>", "reached"]);
        for it in &reached {
            ratios.add_row([
                it.what.to_owned(),
                it.bounds.clone(),
                format!("{:.2}", it.value),
                format!("{:.2}", it.low),
                format!("{:.2}", it.high),
                it.verdict.to_owned(),
            ]);
        }
        println!("{}\n", ratios.trim_fmt());
        measured.skipped.iter().for_each(|line| println!("{line}"));
    }
    if !control.is_empty() {
        let mut changes = table(&["changes", "must · aim", "median>", "", "reached"]);
        for it in control {
            changes.add_row([
                it.what.to_owned(),
                it.bounds.clone(),
                format!("{:.2}", it.value),
                it.unit.to_owned(),
                it.verdict.to_owned(),
            ]);
        }
        println!("{}\n", changes.trim_fmt());
    }

    let written = json!({
        "machine": machine,
        "rounds": packets.map_or(0, |measured| measured.rounds.len()),
        "nanoseconds": rows.iter().map(|row| json!({
            "name": row.name, "what": row.what, "median": row.median, "min": row.least,
            "max": row.most,
        })).collect::<Vec<_>>(),
        "ratios": reached.iter().map(|it| json!({
            "what": it.what, "bounds": it.bounds, "median": it.value, "min": it.low,
            "max": it.high, "reached": it.verdict,
        })).collect::<Vec<_>>(),
        "control": control,
        "skipped": packets.map_or(&[][..], |measured| &measured.skipped),
    });
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    fs::write(
        directory.join("bench.json"),
        serde_json::to_string_pretty(&written)? + "\n",
    )?;
    if !rows.is_empty() {
        fs::write(directory.join("bench.svg"), picture(&rows)?)?;
    }
    println!("{}", directory.join("bench.json").display());
    Ok(())
}

fn rows(measured: &Measured) -> Vec<Row> {
    let row = |(name, what): &(&'static str, &'static str)| {
        let all: Vec<f64> = measured
            .rounds
            .iter()
            .filter_map(|round| round.get(name).copied())
            .collect();
        Some(Row {
            name,
            what,
            median: median(all.clone())?,
            least: all.iter().copied().fold(f64::INFINITY, f64::min),
            most: all.iter().copied().fold(0.0, f64::max),
        })
    };
    measured.subjects.iter().filter_map(row).collect()
}

/// The machine that the figures are of.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = read("/proc/meminfo");
    let kilobytes: Option<u64> = memory
        .split_whitespace()
        .nth(1)
        .and_then(|it| it.parse().ok());
    json!(format!(
        "{}, {cores} processors, {} GiB, Linux {}",
        model.map_or("unknown processor", |(_, model)| model),
        kilobytes.unwrap_or(0) >> 20,
        read("/proc/sys/kernel/osrelease").trim(),
    ))
}

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.iter().map(|it| it.trim_end_matches('>')));
    for (column, heading) in table.column_iter_mut().zip(headings) {
        column.set_padding((0, 2));
        if heading.ends_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The bars of the picture, from top to bottom: subject, label, and whether it is ours.
const BARS: [(&str, &str, bool); 12] = [
    ("wardline forward", "Wardline, fast-forward", true),
    ("plain", "no firewall", false),
    ("wardline", "Wardline, XDP", true),
    ("wardline tc", "Wardline, TC", true),
    ("nft netdev", "nftables, stateless", false),
    ("nft stateful", "nftables, stateful", false),
    ("ipset", "iptables + ipset, stateful", false),
    ("nft interval", "nftables, ranges (10k)", false),
    ("first wardline", "new flow: Wardline, XDP", true),
    ("first nft", "new flow: nftables", false),
    ("deny wardline", "denied: Wardline, XDP", true),
    ("deny nft netdev", "denied: nftables, stateless", false),
];

/// Bars of millions of packets in a second on one processor.
fn picture(rows: &[Row]) -> Result<String> {
    const LABEL: u32 = 220;
    const BAR: f64 = 400.0;
    const LINE: u32 = 26;
    let bars: Vec<(&str, bool, f64)> = BARS
        .iter()
        .filter_map(|(name, label, ours)| {
            let row = rows.iter().find(|row| row.name == *name)?;
            Some((*label, *ours, 1e3 / row.median))
        })
        .collect();
    let longest = bars.iter().map(|(_, _, rate)| *rate).fold(0.0, f64::max);
    let height = LINE * (bars.len() as u32 + 2);
    let width = LABEL + BAR as u32 + 80;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">Million packets a second, one processor, \
         100,000 devices and rules</text>\n"
    );
    for (line, (label, ours, rate)) in (1u32..).zip(&bars) {
        let (y, length) = (line * LINE + 6, rate / longest * BAR);
        let colour = if *ours { "#0b6e4f" } else { "#9aa5b1" };
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LABEL}\" y=\"{y}\" width=\"{length:.0}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{}\">{rate:.2}</text>",
            LABEL - 8,
            y + 14,
            f64::from(LABEL) + length + 6.0,
            y + 14,
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}
