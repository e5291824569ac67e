//! Latency curves by percentile, as SVG. The x axis is logarithmic towards 100 %, so that the slowest
//! requests are visible.

use hdrhistogram::Histogram;
use plotters::prelude::*;

use crate::figures::{as_f64, duration, percentile};

const SIZE: (u32, u32) = (960, 540);
/// Points of a curve between two grid lines.
const POINTS: u32 = 40;
const COLOURS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(214, 110, 20)];

/// Draws one or two named curves from histograms of nanoseconds, and returns the SVG document.
///
/// # Errors
///
/// The histograms are empty, or drawing fails.
pub fn svg(title: &str, curves: &[(&str, &Histogram<u64>)]) -> anyhow::Result<String> {
    let most = curves.iter().map(|(_, nanos)| nanos.len()).max().unwrap_or_default();
    anyhow::ensure!(most > 0, "no request was answered: there is nothing to plot");
    // One grid line per nine: 90 %, 99 %, … up to the percentile that the number of requests supports.
    let nines = as_f64(most).log10().clamp(1.0, 6.0);
    let all: Vec<_> =
        curves.iter().map(|(name, nanos)| (*name, points(nanos, nines.ceil()))).collect();
    let values = || all.iter().flat_map(|(_, points)| points.iter().map(|(_, micros)| *micros));
    let low = values().fold(f64::INFINITY, f64::min).max(0.1) / 1.5;
    let high = values().fold(low * 10.0, f64::max) * 1.5;

    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(16)
        .margin_right(48)
        .x_label_area_size(48)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..nines.ceil(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(8)
        .x_label_formatter(&|nines| percentile(*nines))
        .y_label_formatter(&|micros| duration(*micros))
        .x_desc("percentile of requests")
        .y_desc("latency")
        .draw()?;
    for ((name, points), colour) in all.into_iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).border_style(BLACK.mix(0.3));
    labels.background_style(WHITE).draw()?;
    root.present()?;
    drop(chart);
    drop(root);
    Ok(svg)
}

/// The points of a curve: x is the percentile in nines, up to what the number of requests supports; y is
/// the latency in microseconds.
fn points(nanos: &Histogram<u64>, nines: f64) -> Vec<(f64, f64)> {
    let last = as_f64(nanos.len()).log10().min(nines);
    let at = |nines: f64| {
        let nanos = nanos.value_at_quantile(1.0 - 10.0_f64.powf(-nines));
        (nines, as_f64(nanos) / 1e3)
    };
    let steps = (0_u32..).map(|step| f64::from(step) / f64::from(POINTS));
    steps.take_while(|nines| *nines < last).chain([last.max(0.0)]).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_at_the_last_percentile_with_requests() {
        let mut nanos = Histogram::new_with_max(1_000_000_000, 3).unwrap();
        (1..=1_000).for_each(|micros| nanos.record(micros * 1_000).unwrap());
        let points = points(&nanos, 6.0);
        let (last, slowest) = points[points.len() - 1];
        assert!((last - 3.0).abs() < 1e-9 && (slowest - 1_000.0).abs() < 1.0, "{last} {slowest}");
        let drawn = svg("a < b", &[("one", &nanos), ("other", &nanos)]).unwrap();
        assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"));
        for text in ["a &lt; b", "99.9%", "other", "latency"] {
            assert!(drawn.contains(text), "no {text}");
        }
        assert!(svg("", &[("none", &Histogram::new(3).unwrap())]).is_err());
    }
}
