//! Drawings as SVG: bars beside each other, and lines over a logarithmic axis.

use std::fmt::Write as _;

const COLOURS: [&str; 6] = ["#8a8f98", "#4f81bd", "#c0504d", "#9bbb59", "#e69f00", "#6f4e9c"];
const TEXT: &str = "font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\"";
const WIDTH: f64 = 760.0;
const LEFT: f64 = 210.0;
const TOP: f64 = 64.0;
const BAR: f64 = 13.0;

/// Values of several, one group of bars each.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    /// Whose the bars of a group are, in their order.
    pub(crate) series: &'a [&'a str],
    /// Longer ones are cut, and say how long they are.
    pub(crate) most: f64,
    /// A line at this value.
    pub(crate) mark: Option<f64>,
    pub(crate) unit: &'a str,
}

impl Bars<'_> {
    pub(crate) fn draw(&self, groups: &[(String, Vec<Option<f64>>)]) -> String {
        let shown = |values: &[Option<f64>]| values.iter().flatten().count() as f64;
        let height = TOP + groups.iter().map(|(_, values)| shown(values) * BAR + 12.0).sum::<f64>() + 16.0;
        let scale = (WIDTH - LEFT - 90.0) / self.most;
        let mut svg = begin(self.title, height, self.series);
        let mut y = TOP;
        for (name, values) in groups {
            let middle = y + shown(values) * BAR / 2.0 + 4.0;
            writeln!(
                svg,
                "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\" {TEXT}>{}</text>",
                LEFT - 8.0,
                escape(name)
            )
            .unwrap();
            for (value, colour) in values.iter().zip(COLOURS.iter().cycle()) {
                let Some(value) = value else { continue };
                let (length, cut) = (value.min(self.most) * scale, if *value > self.most { " →" } else { "" });
                writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\" {TEXT}>{}{}{cut}</text>",
                    BAR - 2.0,
                    LEFT + length + 4.0,
                    y + BAR - 3.0,
                    figure(*value),
                    self.unit,
                )
                .unwrap();
                y += BAR;
            }
            y += 12.0;
        }
        if let Some(mark) = self.mark {
            let x = LEFT + mark * scale;
            writeln!(
                svg,
                "<path d=\"M{x:.1} {} V{:.1}\" stroke=\"#333\" stroke-dasharray=\"3 3\"/>",
                TOP - 6.0,
                y - 6.0
            )
            .unwrap();
        }
        svg + "</svg>\n"
    }
}

/// Lines through points, the horizontal axis by powers of ten, the vertical one from zero.
pub(crate) fn lines(title: &str, unit: &str, series: &[(&str, Vec<(f64, f64)>)]) -> String {
    const HEIGHT: f64 = 340.0;
    const MARGIN: f64 = 60.0;
    const FLOOR: f64 = HEIGHT - 40.0;
    let points = || series.iter().flat_map(|(_, points)| points.iter());
    let [first, last] =
        [points().map(|point| point.0).fold(f64::MAX, f64::min), points().map(|point| point.0).fold(1.0, f64::max)]
            .map(f64::log10);
    let most = points().map(|point| point.1).fold(0.0, f64::max) * 1.1;
    let x = |value: f64| MARGIN + (value.log10() - first) / (last - first).max(1.0) * (WIDTH - MARGIN - 40.0);
    let y = |value: f64| FLOOR - value / most * (FLOOR - TOP);
    let names: Vec<&str> = series.iter().map(|(name, _)| *name).collect();
    let mut svg = begin(title, HEIGHT, &names);
    writeln!(svg, "<path d=\"M{MARGIN} {TOP} V{FLOOR} H{}\" stroke=\"#333\" fill=\"none\"/>", WIDTH - 40.0).unwrap();
    for power in first.ceil() as i32..=last.floor() as i32 {
        let (at, text) = (x(10_f64.powi(power)), grouped(10_u64.pow(power.unsigned_abs())));
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" {TEXT}>{text}</text>", FLOOR + 18.0)
            .unwrap();
    }
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        let at = y(value);
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" {TEXT}>{}</text>\
             <path d=\"M{MARGIN} {at:.1} H{}\" stroke=\"#ddd\"/>",
            MARGIN - 6.0,
            at + 4.0,
            figure(value),
            WIDTH - 40.0,
        )
        .unwrap();
    }
    writeln!(svg, "<text x=\"{MARGIN}\" y=\"{}\" text-anchor=\"end\" {TEXT}>{unit}</text>", TOP - 8.0).unwrap();
    for ((_, points), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" "))
            .unwrap();
        for point in points {
            writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(point.0), y(point.1))
                .unwrap();
        }
    }
    svg + "</svg>\n"
}

/// Up to the legend.
fn begin(title: &str, height: f64, series: &[&str]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"22\" font-family=\"sans-serif\" font-size=\"15\" fill=\"#111\">{}</text>\n",
        escape(title)
    );
    let mut x = 12.0;
    for (name, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"34\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"44\" {TEXT}>{}</text>",
            x + 15.0,
            escape(name)
        )
        .unwrap();
        x += 30.0 + name.chars().count() as f64 * 7.0;
    }
    svg
}

/// With three digits or so.
fn figure(value: f64) -> String {
    match value {
        1000.0.. => grouped(value.round() as u64),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// With a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let places = digits.len();
    let with_commas = digits.char_indices().flat_map(|(at, digit)| {
        [(at > 0 && (places - at).is_multiple_of(3)).then_some(','), Some(digit)].into_iter().flatten()
    });
    with_commas.collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
