//! `report.html`: one file, nothing from the network.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Report;
use super::figures::{FleetReport, IdleReport, IdleRow, LoadReport, LoadRow};
use super::grid::{Grid, LEGEND};
use super::plot::{Bar, Curve, bars, colour, curves};
use crate::peers::Peer;

pub fn page(report: &Report) -> Result<String> {
    let loads = report.loads.iter().map(load).collect::<Result<Vec<_>>>()?;
    let idle = report.idle.iter().map(idle).collect::<Result<Vec<_>>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Ringway load test" }
                style { (PreEscaped(include_str!("report.css"))) }
            }
            body {
                header { h1 { "Ringway load test" } (about(report)) }
                main {
                    (summary(report))
                    @for section in loads { (section) }
                    @for section in idle { (section) }
                    @for report in &report.fleets { (fleet(report)) }
                    (legend())
                }
            }
        }
    };
    Ok(page.into_string())
}

/// What the machine is, which versions ran, and any reason why figures may not be compared.
fn about(report: &Report) -> Markup {
    let machine = &report.machine;
    let cores = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(" and ");
    html! {
        @let reasons = report.reasons();
        @if !reasons.is_empty() {
            div.warning { strong { "These figures may not be compared" } ul { @for reason in reasons { li { (reason) } } } }
        }
        div.about {
            table.facts {
                tr { th { "machine" } td { (machine.cpu) ", " (machine.cores_allowed) " cores, " (format!("{:.0}", machine.memory_gib)) " GiB" } }
                tr { th { "kernel" } td { "Linux " (machine.kernel) } }
                tr { th { "cores" } td {
                    "proxy " (cores(&machine.cores.proxy)) ", generator " (machine.cores.generator) ", backend " (machine.cores.backend)
                } }
                tr { th { "before the run" } td {
                    (format!("{:.1} %", machine.use_at_start * 100.0)) " of the cores in use, load average " (machine.load_average_at_start)
                } }
                tr { th { "method" } td {
                    (report.rounds) " visits of " (report.seconds) " s each, peers in turns; medians, and ratios within each round"
                } }
                @for remark in report.remarks() { tr { th { "note" } td { (remark) } } }
                @for left_out in &report.left_out { tr { th { "left out" } td { strong { (left_out.what) } ": " (left_out.why) } } }
            }
            table.facts {
                @for peer in &report.peers { tr { th { (name(peer.peer)) } td { (peer.version) } } }
            }
        }
    }
}

/// CPU per request of all peers in all cases, with the best of each case that is no floor in bold.
fn summary(report: &Report) -> Markup {
    let peers: Vec<Peer> = report.peers.iter().map(|peer| peer.peer).filter(|peer| *peer != Peer::Direct).collect();
    html! {
        section {
            h2 { "CPU per request, µs" }
            p.about-section { "In small: against nginx in the same rounds. Bold: the least of those that are more than a relay." }
            div.scroll { table.grid {
                thead { tr { th { "case" } @for peer in &peers { th { (name(*peer)) } } } }
                tbody {
                    @for load in &report.loads {
                        @let row_of = |peer: Peer| load.rows.iter().find(|row| row.peer == peer);
                        @let right = load.rows.iter().filter(|row| row.is_right() && !row.peer.is_relay());
                        @let least = right.filter_map(|row| row.cpu_us).fold(f64::INFINITY, f64::min);
                        tr {
                            th { a href={ "#" (load.case) } { (load.case) } }
                            @for peer in &peers {
                                @match row_of(*peer) {
                                    None => td.none { "" },
                                    Some(row) if !row.is_right() => td.fault { "wrong" },
                                    Some(row) => td.least[row.cpu_us == Some(least)] {
                                        (row.cpu_us.map_or("–".to_owned(), |us| format!("{us:.1}")))
                                        small { (row.cpu_to_nginx.map_or(String::new(), |ratio| format!("{ratio:.2}"))) }
                                    },
                                }
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn load(report: &LoadReport) -> Result<Markup> {
    let bars_of = |figure: fn(&LoadRow) -> Option<f64>, decimals| {
        // Who was wrong keeps its place; who has no such figure has none.
        let bar = |row: &LoadRow| match (row.is_right(), figure(row)) {
            (true, None) => None,
            (right, value) => Some(Bar { peer: row.peer, value: value.filter(|_| right) }),
        };
        bars(&report.rows.iter().filter_map(bar).collect::<Vec<_>>(), decimals)
    };
    let right = || report.rows.iter().filter(|row| row.is_right());
    let all_curves: Vec<Curve> = right().map(|row| Curve { peer: row.peer, points: row.curve.clone() }).collect();
    Ok(html! {
        section id=(report.case) {
            h2 { (report.case) }
            p.about-section { (report.title) }
            div.plots {
                div {
                    figure { figcaption { "CPU of the proxy per request, µs" } (PreEscaped(bars_of(|row| row.cpu_us, 1)?)) }
                    // On a fixed schedule all are equally fast, or it shows in the latency.
                    @if report.rate.is_none() {
                        figure {
                            figcaption { "Requests per second" }
                            (PreEscaped(bars_of(|row| Some(row.requests_per_second), 0)?))
                        }
                    } @else {
                        figure { figcaption { "p99, µs" } (PreEscaped(bars_of(|row| Some(row.latency.p99_us), 0)?)) }
                    }
                }
                figure {
                    figcaption { "Latency by percentile" }
                    (PreEscaped(curves(&all_curves)?))
                    p.key { @for row in right() { (name(row.peer)) " " } }
                }
            }
            (grid(&report.grid()))
            @if let Some(events) = report.event_grid() {
                h3 { "An event, from the backend's stamp to its arrival, µs" }
                (grid(&events))
            }
        }
    })
}

fn idle(report: &IdleReport) -> Result<Markup> {
    let value = |row: &IdleRow| row.held.as_ref().map(|held| held.per_connection_bytes / 1024.0);
    let all: Vec<Bar> = report.rows.iter().map(|row| Bar { peer: row.peer, value: value(row) }).collect();
    Ok(html! {
        section id=(report.case) {
            h2 { (report.case) }
            p.about-section { (report.title) "; memory of the process, without the kernel's buffers" }
            div.plots { figure { figcaption { "Memory of the proxy for each, KiB" } (PreEscaped(bars(&all, 2)?)) } }
            (grid(&report.grid()))
        }
    })
}

fn fleet(report: &FleetReport) -> Markup {
    html! {
        section id=(report.case) {
            h2 { (report.case) }
            p.about-section {
                (report.title()) ". CPU is compared with a fleet of ten of which the same ten are asked, "
                "p99 while it reloads over and over with p99 while it does not."
            }
            (grid(&report.grid()))
        }
    }
}

fn legend() -> Markup {
    html! {
        section {
            h2 { "What the columns mean" }
            table.facts { @for (column, meaning) in LEGEND { tr { th { (column) } td { (meaning) } } } }
        }
    }
}

fn grid(grid: &Grid) -> Markup {
    html! {
        div.scroll { table.grid {
            thead { tr { @for column in &grid.columns { th { (column) } } } }
            tbody {
                @for row in &grid.rows {
                    tr.own[row.is_ringway] {
                        th { (row.cells[0]) @if row.disturbed { " ~" } }
                        @for cell in &row.cells[1..] { td { (cell) } }
                    }
                    @if let Some(remark) = &row.remark { tr.remark { td colspan=(grid.columns.len()) { (row.cells[0]) ": " (remark) } } }
                    @if let Some(fault) = &row.fault { tr.fault { td colspan=(grid.columns.len()) { (row.cells[0]) ": " (fault) } } }
                }
            }
        } }
    }
}

/// A peer's name behind a dot of its colour.
fn name(peer: Peer) -> Markup {
    let plotters::style::RGBColor(r, g, b) = colour(peer);
    html! { span.peer { i style={ "background:rgb(" (r) "," (g) "," (b) ")" } {} (peer.name()) } }
}
