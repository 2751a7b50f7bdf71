//! A drawing as text. Whatever is written into it is escaped here.

/// Colours that those who confuse red and green can tell apart, for light and dark surroundings.
const STYLE: &str = "\
svg{font:12px system-ui,sans-serif;background:#fff;color-scheme:light dark}\
text{fill:#1f2328}.title{font-size:17px;font-weight:600}.bold{font-weight:600}.small{font-size:11px}\
.tiny{font-size:9px}.dim{fill:#656d76}.end{text-anchor:end}\
.back{fill:#fff}.mass{fill:#7a6fc4}.grid{stroke:#d8dee4;stroke-width:.6}.axis{stroke:#8c959f}\
.culprit{stroke:#b8860b;stroke-width:1.4;stroke-dasharray:4 3}\
.bad{fill:#d1440c;stroke:#fff;stroke-width:.6}.good{fill:#0a6ebd;stroke:#fff;stroke-width:.6}\
.skip{fill:none;stroke:#57606a;stroke-width:1.8}.open{fill:none;stroke:#57606a;stroke-width:1.3}\
@media(prefers-color-scheme:dark){svg{background:#0d1117}.back{fill:#0d1117}text{fill:#e6edf3}.dim{fill:#9198a1}\
.mass{fill:#9d92ea}.grid{stroke:#30363d}.axis{stroke:#656d76}.culprit{stroke:#e3b341}\
.bad{fill:#ff7b45;stroke:#0d1117}.good{fill:#58a6ff;stroke:#0d1117}.skip,.open{stroke:#9198a1}}";

pub(super) struct Svg(String);

impl Svg {
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let title = escaped(title);
        Svg(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n<rect class=\"back\" width=\"100%\" height=\"100%\"/>\n"
        ))
    }

    pub fn text(&mut self, (x, y): (f64, f64), class: &str, words: &str) {
        let words = escaped(words);
        self.0.push_str(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{words}</text>\n"));
    }

    pub fn line(&mut self, (x, y): (f64, f64), (to_x, to_y): (f64, f64), class: &str) {
        self.0.push_str(&format!(
            "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\" class=\"{class}\"/>\n"
        ));
    }

    pub fn path(&mut self, path: &str, class: &str) {
        self.0.push_str(&format!("<path d=\"{path}\" class=\"{class}\"/>\n"));
    }

    /// One that says more to whoever points at it.
    pub fn titled_path(&mut self, path: &str, class: &str, said: &str) {
        let said = escaped(said);
        self.0.push_str(&format!("<path d=\"{path}\" class=\"{class}\"><title>{said}</title></path>\n"));
    }

    pub fn finish(self) -> String {
        self.0 + "</svg>\n"
    }
}

/// Fit for XML: no markup of others, and none of the characters that XML forbids.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

pub(super) fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
