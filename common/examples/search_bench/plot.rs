//! Plots as SVG, by hand: two are not worth a library.

use std::fmt::Write as _;

const SIZE: f64 = 420.0;
const EDGE: f64 = 60.0;

/// A point of a plot, each coordinate from 0 to 1, and what stands beside it.
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub text: String,
}

pub struct Plot<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Where the axes have their marks.
    pub x_marks: Vec<(f64, String)>,
    pub y_marks: Vec<(f64, String)>,
    /// What would be ideal: from corner to corner.
    pub diagonal: bool,
    pub series: Vec<(&'a str, Vec<Point>)>,
}

const COLOURS: [&str; 2] = ["#1f6fb4", "#c4501b"];

pub fn svg(plot: &Plot) -> String {
    let x = |share: f64| EDGE + share * SIZE;
    let y = |share: f64| EDGE + (1.0 - share) * SIZE;
    let whole = SIZE + 2.0 * EDGE;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {whole} {whole}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{whole}\" height=\"{whole}\" fill=\"white\"/>\n\
         <rect x=\"{EDGE}\" y=\"{EDGE}\" width=\"{SIZE}\" height=\"{SIZE}\" fill=\"none\" stroke=\"#888\"/>\n"
    );
    let mut put = |x: f64, y: f64, anchor: &str, words: &str| {
        let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
    };
    put(whole / 2.0, EDGE / 2.0, "middle", plot.title);
    put(whole / 2.0, whole - EDGE / 4.0, "middle", plot.x);
    put(8.0, EDGE - 12.0, "start", plot.y);
    plot.x_marks.iter().for_each(|(at, words)| put(x(*at), EDGE + SIZE + 18.0, "middle", words));
    plot.y_marks.iter().for_each(|(at, words)| put(EDGE - 6.0, y(*at) + 4.0, "end", words));
    for (number, ((name, points), colour)) in plot.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let line: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point.x), y(point.y))).collect();
        let line = line.join(" ");
        let _ = writeln!(text, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\"/>");
        for point in points {
            let (x, y) = (x(point.x), y(point.y));
            let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
            let _ = writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                x + 6.0,
                y + 14.0,
                point.text
            );
        }
        let below = EDGE + 18.0 + 16.0 * number as f64;
        let _ =
            writeln!(text, "<text x=\"{:.1}\" y=\"{below:.1}\" fill=\"{colour}\">{name}</text>", EDGE + 10.0);
    }
    if plot.diagonal {
        let (from, to) = ((x(0.0), y(0.0)), (x(1.0), y(1.0)));
        let _ = writeln!(
            text,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"#888\" stroke-dasharray=\"4\"/>",
            from.0, from.1, to.0, to.1
        );
    }
    text + "</svg>\n"
}
