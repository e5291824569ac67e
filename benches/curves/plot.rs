//! A curve as an SVG with two logarithmic axes.

use plotters::prelude::*;

use crate::report::{Curve, number, thousands};

const SIZE: (u32, u32) = (800, 450);
/// A colour for each series of a curve.
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 110, 20),
    RGBColor(60, 140, 60),
    RGBColor(150, 80, 160),
    RGBColor(120, 85, 70),
    RGBColor(190, 40, 60),
];

/// Draws the curve: medians as lines, with bars from minimum to maximum.
///
/// # Errors
///
/// If drawing fails.
pub(crate) fn svg(curve: &Curve) -> anyhow::Result<String> {
    let points = || curve.series.iter().flat_map(|series| &series.points);
    let xs = || points().map(|point| point.x as f64);
    let (left, right) = (xs().fold(f64::INFINITY, f64::min), xs().fold(0.0, f64::max));
    let low = points().map(|point| point.y.low).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.y.high).fold(0.0, f64::max);
    // Whole decades, because only these have labels.
    let (bottom, top) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
    anyhow::ensure!(low > 0.0 && high.is_finite(), "{}: there is nothing to plot", curve.id);

    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(curve.title, ("sans-serif", 17))
        .margin(12)
        .margin_right(30)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d((left * 0.9..right * 1.1).log_scale(), (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .x_label_formatter(&|x| whole(*x))
        .y_label_formatter(&|y| number(*y))
        .x_desc(curve.x)
        .y_desc(curve.y)
        .draw()?;
    for (series, colour) in curve.series.iter().zip(COLOURS.iter().cycle().copied()) {
        let medians = series.points.iter().map(|point| (point.x as f64, point.y.median));
        chart
            .draw_series(LineSeries::new(medians.clone(), colour.stroke_width(2)))?
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(medians.map(|at| Circle::new(at, 3, colour.filled())))?;
        chart.draw_series(series.points.iter().map(|point| {
            let x = point.x as f64;
            PathElement::new([(x, point.y.low), (x, point.y.high)], colour.stroke_width(1))
        }))?;
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).border_style(BLACK.mix(0.3));
    labels.background_style(WHITE.mix(0.8)).draw()?;
    root.present()?;
    drop(chart);
    drop(root);
    Ok(svg)
}

#[expect(clippy::cast_possible_truncation, reason = "a rounded label")]
#[expect(clippy::cast_sign_loss, reason = "the value is positive")]
fn whole(x: f64) -> String {
    thousands(x.round() as u64)
}
