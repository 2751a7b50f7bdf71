//! A commit as `git show --stat` prints it.

use super::words::plural;
use super::{CommitDetails, FileStat};

/// The width git assumes where there is no terminal.
const WIDTH: usize = 80;

/// The commit's header, message and diffstat, each line ended.
pub fn commit(details: &CommitDetails) -> String {
    let mut text = format!("commit {}\n", details.revision);
    if details.parents.len() > 1 {
        let short: Vec<String> = details.parents.iter().map(|parent| parent.short()).collect();
        text.push_str(&format!("Merge: {}\n", short.join(" ")));
    }
    text.push_str(&format!("Author: {}\nDate:   {}\n\n", details.author, details.date));
    for line in details.message.trim_end().lines() {
        text.push_str(&format!("    {line}\n"));
    }
    if !details.files.is_empty() {
        text.push('\n');
        text.push_str(&diffstat(&details.files));
    }
    text
}

/// git's diffstat with its summary line; empty for no files.
pub fn diffstat(files: &[FileStat]) -> String {
    let layout = Layout::of(files);
    let mut text: String = files.iter().map(|file| layout.line(file)).collect();
    if let Some(summary) = summary(files) {
        text.push_str(&format!(" {summary}\n"));
    }
    text
}

/// `1 file changed, 12 insertions(+), 56 deletions(-)`.
pub fn summary(files: &[FileStat]) -> Option<String> {
    let insertions: usize = files.iter().map(|file| file.insertions).sum();
    let deletions: usize = files.iter().map(|file| file.deletions).sum();
    let mut text = match files.len() {
        0 => return None,
        n => format!("{n} {} changed", plural(n, "file")),
    };
    if insertions > 0 || deletions == 0 {
        text.push_str(&format!(", {insertions} {}(+)", plural(insertions, "insertion")));
    }
    if deletions > 0 || insertions == 0 {
        text.push_str(&format!(", {deletions} {}(-)", plural(deletions, "deletion")));
    }
    Some(text)
}

/// The widths of the columns, as `show_stats` of git's diff.c computes them.
struct Layout {
    name: usize,
    number: usize,
    graph: usize,
    most: usize,
}

impl Layout {
    fn of(files: &[FileStat]) -> Self {
        let most = files.iter().map(changes).max().unwrap_or(0);
        let longest = files.iter().map(|file| file.path.chars().count()).max().unwrap_or(0);
        let number = most.to_string().len();
        let (mut name, mut graph) = (longest, most);
        if name + number + 6 + graph > WIDTH {
            graph = graph.min((WIDTH * 3 / 8 - number - 6).max(6));
            if name > WIDTH - number - 6 - graph {
                name = WIDTH - number - 6 - graph;
            } else {
                graph = WIDTH - number - 6 - name;
            }
        }
        Layout { name, number, graph, most }
    }

    fn line(&self, file: &FileStat) -> String {
        let (plus, minus) = self.bars(file);
        let space = if changes(file) > 0 { " " } else { "" };
        let (plus, minus) = ("+".repeat(plus), "-".repeat(minus));
        let (name, count) = (shorten(&file.path, self.name), changes(file));
        format!(" {name:<0$} | {count:>1$}{space}{plus}{minus}\n", self.name, self.number)
    }

    fn bars(&self, file: &FileStat) -> (usize, usize) {
        let (plus, minus) = (file.insertions, file.deletions);
        if self.graph > self.most {
            return (plus, minus);
        }
        let mut total = self.scale(plus + minus);
        if total < 2 && plus > 0 && minus > 0 {
            total = 2;
        }
        if plus < minus {
            let plus = self.scale(plus);
            (plus, total.saturating_sub(plus))
        } else {
            let minus = self.scale(minus);
            (total.saturating_sub(minus), minus)
        }
    }

    fn scale(&self, n: usize) -> usize {
        if n == 0 { 0 } else { 1 + n * (self.graph - 1) / self.most }
    }
}

fn changes(file: &FileStat) -> usize {
    file.insertions + file.deletions
}

/// The end of a path that is too long, from a slash on where there is one.
fn shorten(path: &str, width: usize) -> String {
    let length = path.chars().count();
    if length <= width {
        return path.into();
    }
    let tail: String = path.chars().skip(length - width.saturating_sub(3)).collect();
    let from = tail.find('/').unwrap_or(0);
    format!("...{}", &tail[from..])
}
