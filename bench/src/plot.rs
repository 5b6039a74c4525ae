//! Figures as curves: SVG by plotters, on a white ground.

use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::prelude::{
    Color as _, IntoDrawingArea as _, IntoLogRange as _, LineSeries, PathElement, RGBColor,
    SVGBackend, WHITE,
};

use crate::error::BenchError;

/// Width and height of a plot, in pixels.
const SIZE: (u32, u32) = (860, 420);
/// Colours that are told apart by those too who see few (Okabe and Ito's).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// A named curve. Points that are not numbers are left out.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it stands for.
    pub name: String,
    /// Its points from left to right.
    pub points: Vec<(f64, f64)>,
}

/// The meaning of a plot's horizontal axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Shares of all requests from 0 to under 1; each decade nearer to 1 is as wide as the first.
    Percentile,
    /// Requests a second, from 0.
    Rate,
}

/// Curves of latencies, in milliseconds on a logarithmic axis, as one SVG element.
///
/// # Errors
/// No curve has a point.
pub fn latencies(title: &str, axis: Axis, curves: &[Curve]) -> Result<String, BenchError> {
    let curves: Vec<Curve> = curves.iter().map(|curve| on_axis(curve, axis)).collect();
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let largest = |of: fn((f64, f64)) -> f64| points().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let (right, top) = (largest(|point| point.0), largest(|point| point.1));
    let bottom = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    if !bottom.is_finite() {
        return Err(BenchError::Options(format!("{title}: there is nothing to draw")));
    }
    let mut svg = String::new();
    let failed = |error: &dyn std::error::Error| BenchError::Draw(error.to_string());
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..right * 1.02, (bottom / 1.3..top * 1.3).log_scale())
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_desc(match axis {
                Axis::Percentile => "share of the requests",
                Axis::Rate => "answers a second",
            })
            .y_desc("latency, ms")
            .x_label_formatter(&|x| match axis {
                Axis::Percentile => percentile(*x),
                Axis::Rate => format!("{x:.0}"),
            })
            .y_label_formatter(&|y| short(*y))
            .light_line_style(RGBColor(240, 240, 240))
            .draw()
            .map_err(|error| failed(&error))?;
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
            let sample = |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2));
            let drawn = chart.draw_series(line).map_err(|error| failed(&error))?;
            drawn.label(curve.name.as_str()).legend(sample);
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

/// The curve as it lies on the axis.
fn on_axis(curve: &Curve, axis: Axis) -> Curve {
    let place = |&(x, y): &(f64, f64)| match axis {
        Axis::Percentile => (-(1.0 - x).log10(), y),
        Axis::Rate => (x, y),
    };
    let finite = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && y > 0.0;
    let points = curve.points.iter().map(place).filter(finite).collect();
    Curve { name: curve.name.clone(), points }
}

/// A place of the percentile axis as text: 0 is 0 %, 1 is 90 %, 2 is 99 %.
fn percentile(place: f64) -> String {
    let share = 100.0 * (1.0 - 10_f64.powf(-place));
    // As many digits as tell it from its neighbours.
    let digits = (place.ceil() - 2.0).clamp(0.0, 6.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 6")]
    let digits = digits as usize;
    format!("{share:.digits$} %")
}

/// A number with as few digits as it needs.
fn short(number: f64) -> String {
    let text = if number < 1.0 { format!("{number:.3}") } else { format!("{number:.1}") };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Axis, Curve, latencies, percentile, short};

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve { name: "a <b>".to_owned(), points: points.to_vec() }
    }

    #[test]
    fn curves_become_lines_with_their_names() {
        let points = [(0.0, 1.0), (0.5, 2.0), (0.99, 30.0), (1.0, 40.0)];
        for axis in [Axis::Percentile, Axis::Rate] {
            let svg = latencies("all & sundry", axis, &[curve(&points)]).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(svg.contains("a &lt;b&gt;") && svg.contains("all &amp; sundry"), "{svg}");
            assert!(svg.contains("<polyline"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn nothing_is_no_plot() {
        for curves in [&[][..], &[curve(&[])], &[curve(&[(0.5, 0.0), (0.1, f64::NAN)])]] {
            let error = latencies("empty", Axis::Rate, curves).unwrap_err();
            assert!(error.to_string().contains("empty"), "{error}");
        }
    }

    #[test]
    fn places_are_labelled_by_what_they_are() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
        assert_eq!([0.125, 0.1, 1.0, 12.5, 300.0].map(short), ["0.125", "0.1", "1", "12.5", "300"]);
    }
}
