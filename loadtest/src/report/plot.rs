//! Plots as SVG: bars of one figure per peer, and whole latency distributions.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::peers::Peer;

/// One peer's bar; without a value it has a name and an empty place.
pub struct Bar {
    pub peer: Peer,
    pub value: Option<f64>,
}

/// Nines and microseconds: (2.0, 340.0) says that 99 % took 340 µs or less.
pub struct Curve {
    pub peer: Peer,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: u32 = 620;
const BAR_HEIGHT: u32 = 24;
const CURVE_HEIGHT: u32 = 400;
const NAME_WIDTH: u32 = 130;
const TEXT: RGBColor = RGBColor(73, 80, 87);
const FAINT: RGBColor = RGBColor(233, 236, 239);

/// One colour each: greys for what is no proxy, warm ones for Ringway.
pub fn colour(peer: Peer) -> RGBColor {
    let (r, g, b) = match peer {
        Peer::Direct => (173, 181, 189),
        Peer::RelayEpoll => (134, 142, 150),
        Peer::RelayUring => (73, 80, 87),
        Peer::Nginx => (43, 138, 62),
        Peer::NginxBig => (116, 184, 22),
        Peer::Haproxy => (25, 113, 194),
        Peer::Ringway => (217, 72, 15),
        Peer::RingwayEpoll => (245, 159, 0),
        Peer::RingwayStream => (224, 49, 49),
        Peer::RingwayEnvelope => (214, 51, 108),
        Peer::Ringway2 => (255, 135, 135),
        Peer::RingwayPgo => (166, 30, 77),
        Peer::McpProxy => (12, 133, 153),
        Peer::McpGateway => (102, 217, 232),
        Peer::Agentgateway => (95, 61, 196),
        Peer::Envoy => (174, 62, 201),
        Peer::Monolake => (76, 110, 245),
    };
    RGBColor(r, g, b)
}

/// Horizontal bars, the first on top, each with its value behind it.
pub fn bars(bars: &[Bar], decimals: usize) -> Result<String> {
    let max = bars.iter().filter_map(|bar| bar.value).fold(0.0, f64::max);
    let mut svg = String::new();
    if bars.is_empty() || max <= 0.0 {
        return Ok(svg);
    }
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, BAR_HEIGHT * bars.len() as u32 + 8)).into_drawing_area();
        // The text is dark, and whoever shows the plot may be dark, too.
        root.fill(&WHITE).map_err(broken)?;
        // Room at the end for the value of the longest bar.
        let mut chart = ChartBuilder::on(&root)
            .margin(4)
            .set_label_area_size(LabelAreaPosition::Left, NAME_WIDTH)
            .build_cartesian_2d(0.0..max * 1.16, 0.0..bars.len() as f64)
            .map_err(broken)?;
        let (behind, before) = (text(12, HPos::Left), text(13, HPos::Right));
        for (index, Bar { peer, value }) in bars.iter().enumerate() {
            // Upwards is up: the first bar has the highest place.
            let middle = (bars.len() - index) as f64 - 0.5;
            let length = value.unwrap_or(0.0);
            let label = value.map_or("–".to_owned(), |value| format!("{value:.decimals$}"));
            let rectangle = Rectangle::new([(0.0, middle - 0.36), (length, middle + 0.36)], colour(*peer).filled());
            let at = |x, offset, style: &TextStyle<'static>, text: String| {
                EmptyElement::at((x, middle)) + Text::new(text, (offset, 0), style.clone())
            };
            chart.draw_series([rectangle]).map_err(broken)?;
            chart.draw_series([at(length, 6, &behind, label)]).map_err(broken)?;
            chart.plotting_area().draw(&at(0.0, -8, &before, peer.name())).map_err(broken)?;
        }
        root.present().map_err(broken)?;
    }
    Ok(svg)
}

/// Latency over its percentiles, so that one can see from where on a tail begins. Both axes are logarithmic.
pub fn curves(curves: &[Curve]) -> Result<String> {
    let points = || curves.iter().flat_map(|curve| &curve.points).filter(|(_, us)| *us > 0.0);
    let nines_max = points().map(|(nines, _)| *nines).fold(1.0, f64::max);
    let min = points().map(|(_, us)| *us).fold(f64::INFINITY, f64::min);
    let max = points().map(|(_, us)| *us).fold(0.0, f64::max);
    let mut svg = String::new();
    if max <= 0.0 {
        return Ok(svg);
    }
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, CURVE_HEIGHT)).into_drawing_area();
        // From a power of ten on, so that the axis has a label even if all are within one.
        let min = 10f64.powf(min.log10().floor());
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .set_label_area_size(LabelAreaPosition::Left, 62)
            .set_label_area_size(LabelAreaPosition::Bottom, 26)
            .build_cartesian_2d(0.0..nines_max, (min..max * 1.25).log_scale())
            .map_err(broken)?;
        chart
            .configure_mesh()
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .axis_style(FAINT)
            .label_style(("sans-serif", 12).into_font().color(&TEXT))
            .x_labels(nines_max as usize + 1)
            .x_label_formatter(&|nines| percentile(*nines))
            .y_labels(6)
            .y_label_formatter(&|us| duration(*us))
            .draw()
            .map_err(broken)?;
        for Curve { peer, points } in curves {
            let width = if peer.is_ringway() { 3 } else { 2 };
            let line = LineSeries::new(points.iter().copied(), colour(*peer).stroke_width(width));
            chart.draw_series(line).map_err(broken)?;
        }
        root.present().map_err(broken)?;
    }
    Ok(svg)
}

fn text(size: i32, side: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(side, VPos::Center))
}

/// 0 is the shortest, 1 the 90th percentile, 2 the 99th.
fn percentile(nines: f64) -> String {
    let decimals = (nines.round() as usize).saturating_sub(2);
    if nines < 0.5 { "min".to_owned() } else { format!("{:.decimals$} %", 100.0 - 10f64.powf(2.0 - nines)) }
}

fn duration(us: f64) -> String {
    match us {
        _ if us >= 1e6 => format!("{} s", us / 1e6),
        _ if us >= 1e3 => format!("{} ms", us / 1e3),
        _ => format!("{us} µs"),
    }
}

/// Errors of the drawing backend borrow the drawing.
fn broken(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_their_names_and_values() {
        let all = [Bar { peer: Peer::Nginx, value: Some(28.125) }, Bar { peer: Peer::Direct, value: None }];
        let svg = bars(&all, 1).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("nginx") && svg.contains("28.1") && svg.contains('–'), "{svg}");
        assert_eq!(bars(&[], 1).unwrap(), "");
    }

    #[test]
    fn a_curve_is_drawn_over_percentiles() {
        let points = vec![(0.0, 100.0), (1.0, 200.0), (2.0, 400.0), (3.0, 9000.0)];
        let svg = curves(&[Curve { peer: Peer::Ringway, points }]).unwrap();
        assert!(svg.contains("<polyline") && svg.contains("99 %") && svg.contains("99.9 %"), "{svg}");
        assert_eq!(curves(&[]).unwrap(), "");
    }

    #[test]
    fn labels_say_what_people_say() {
        assert_eq!([0.0, 1.0, 2.0, 3.0, 4.0].map(percentile), ["min", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert_eq!([50.0, 1000.0, 2e6].map(duration), ["50 µs", "1 ms", "2 s"]);
    }
}
