//! The posterior over the range, round by round, as an SVG that stands alone.
//!
//! One row for each round: what was believed when its kernels were picked, and those kernels by
//! what came of them. The last row is what was believed in the end.

mod svg;

use super::explain::{self, Subject};
use super::words::{self, one_line, plural};
use super::{Record, Tested};
use crate::bisect::{Belief, Finding, Picked, Role, Round};
use crate::history::History;
use crate::job::Mode;
use crate::verdict::Verdict;
use svg::{Svg, shortened};

/// Of more rounds some are left out, evenly.
const ROWS_MAX: usize = 60;
/// Pixels: the columns of words beside the chart, the chart, a row and what is drawn of it.
const LEFT: f64 = 170.0;
const CHART: f64 = 620.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 112.0;
const ROW: f64 = 74.0;
const BARS: f64 = 46.0;
const BOTTOM: f64 = 64.0;
const MARK: f64 = 4.5;
/// Probabilities with a line and a name.
const GRID: [f64; 3] = [0.01, 0.25, 1.0];

/// The plot of a job as far as it has come; empty while nothing is believed of a range.
pub fn render(record: &Record<'_>) -> String {
    let Some(history) = record.history else { return String::new() };
    let all: Vec<usize> = (0..record.rounds.len()).filter(|&at| record.rounds[at].belief.is_some()).collect();
    if all.is_empty() {
        return String::new();
    }
    let rows = spread(&all, ROWS_MAX);
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let mut svg = Svg::new(LEFT + CHART + RIGHT, height, &heading(record));
    head(&mut svg, record, (rows.len(), all.len()));
    for (row, at) in rows.iter().enumerate() {
        let top = TOP + ROW * row as f64;
        if let Some(belief) = &record.rounds[*at].belief {
            words_beside(&mut svg, record.rounds, *at, belief, top);
            bars(&mut svg, belief, top);
        }
        marks(&mut svg, record, history, &record.rounds[*at], top + BARS);
    }
    culprit(&mut svg, record, history, rows.len());
    foot(&mut svg, record, history, height);
    svg.finish()
}

/// At most `max` of them, the first and the last among them.
fn spread(all: &[usize], max: usize) -> Vec<usize> {
    if all.len() <= max {
        return all.to_vec();
    }
    (0..max).map(|at| all[at * (all.len() - 1) / (max - 1)]).collect()
}

fn heading(record: &Record<'_>) -> String {
    let what = match record.job.mode {
        Mode::Cause => "Which commit brought the crash",
        Mode::Fix => "Which commit fixed the crash",
    };
    format!("{what}: {}", one_line(&record.job.name))
}

fn head(svg: &mut Svg, record: &Record<'_>, (shown, rounds): (usize, usize)) {
    svg.text((20.0, 30.0), "title", &heading(record));
    let title = words::target(record, record.tested.len()).map(one_line).unwrap_or_default();
    let left_out =
        if shown < rounds { format!(" ({shown} of {rounds} rounds are shown)") } else { String::new() };
    svg.text((20.0, 50.0), "", &title);
    svg.text(
        (20.0, 68.0),
        "dim",
        &format!(
            "Each row: the probability of each part of the range when the round's kernels were picked{left_out}"
        ),
    );
    let mut x = 20.0;
    let seen = [Some(Verdict::Bad), Some(Verdict::Good), Some(Verdict::Skip), None];
    for (verdict, words) in
        seen.into_iter().zip(["shows the crash", "does not show it", "cannot be judged", "no verdict"])
    {
        mark(svg, (x + 5.0, 88.0), verdict, words);
        svg.text((x + 15.0, 92.0), "small", words);
        x += 30.0 + 6.2 * words.len() as f64;
    }
    if ended_with(record).is_some() {
        svg.line((x + 2.0, 82.0), (x + 2.0, 95.0), "culprit");
        svg.text((x + 10.0, 92.0), "small", "the commit that was found");
    }
}

fn ended_with(record: &Record<'_>) -> Option<crate::id::RevisionId> {
    match &record.ending?.finding {
        Finding::Culprit { revision, .. } => Some(*revision),
        _ => None,
    }
}

fn culprit(svg: &mut Svg, record: &Record<'_>, history: &History, rows: usize) {
    let Some(at) = ended_with(record).and_then(|id| history.find(&id)) else { return };
    let x = place(history, at);
    svg.line((x, TOP - 6.0), (x, TOP + ROW * rows as f64), "culprit");
}

/// Where a commit stands: its part of the chart's width, in the order of the history.
fn place(history: &History, at: u32) -> f64 {
    LEFT + CHART * (f64::from(at) + 0.5) / history.len() as f64
}

/// The square root makes a part that holds one per cent a tenth of the height.
fn height(probability: f64) -> f64 {
    BARS * probability.clamp(0.0, 1.0).sqrt()
}

fn words_beside(svg: &mut Svg, rounds: &[Round], at: usize, belief: &Belief, top: f64) {
    let picks = rounds[at].picks.len();
    let name = if picks == 0 { "the end".into() } else { format!("round {}", at + 1) };
    svg.text((20.0, top + 12.0), "bold", &name);
    if picks > 0 {
        svg.text((20.0, top + 27.0), "small", &format!("{picks} {} picked", plural(picks, "kernel")));
        let bits: f64 = rounds[at].picks.iter().filter_map(|pick| pick.bits).sum();
        svg.text((20.0, top + 41.0), "small", &format!("{bits:.2} bits expected"));
    }
    let x = LEFT + CHART + 14.0;
    svg.text((x, top + 12.0), "small", &explain::unknown(belief));
    let suspects = plural(belief.suspects, "suspect");
    svg.text((x, top + 26.0), "small", &format!("{} {suspects}", belief.suspects));
    if let Some(likeliest) = belief.likeliest.first() {
        let words = format!("{} {}", likeliest.revision.short(), explain::percent(likeliest.probability));
        svg.text((x, top + 40.0), "small dim", &words);
    }
    if let Some(bits) = explain::learned(rounds, at) {
        svg.text((x, top + 54.0), "small dim", &format!("then {:.2} bits learned", bits + 0.0));
    }
}

fn bars(svg: &mut Svg, belief: &Belief, top: f64) {
    let base = top + BARS;
    for probability in GRID {
        let y = base - height(probability);
        svg.line((LEFT, y), (LEFT + CHART, y), "grid");
        svg.text((LEFT - 5.0, y + 3.0), "tiny dim end", &explain::percent(probability));
    }
    svg.line((LEFT, base), (LEFT + CHART, base), "axis");
    let width = CHART / belief.outline.len().max(1) as f64;
    let mut path = format!("M{LEFT:.1} {base:.1}");
    for (at, part) in belief.outline.iter().enumerate() {
        path.push_str(&format!(
            "V{:.1}H{:.1}",
            base - height(f64::from(*part)),
            LEFT + width * (at as f64 + 1.0)
        ));
    }
    svg.path(&format!("{path}V{base:.1}Z"), "mass");
}

/// The kernels of a round that stand in the range, by what came of them.
fn marks(svg: &mut Svg, record: &Record<'_>, history: &History, round: &Round, base: f64) {
    for pick in &round.picks {
        let commit = match &pick.role {
            Role::Revert(commit) => *commit,
            Role::Start
            | Role::GoodEnd
            | Role::Release(_)
            | Role::Search
            | Role::Certify
            | Role::Overruled => pick.revision,
        };
        let Some(at) = history.find(&commit) else { continue };
        let verdict = came_of(record.tested, pick, round.after);
        let said = explain::reason(pick, Subject::Crash);
        mark(svg, (place(history, at), base + 9.0), verdict, &said);
    }
}

/// The first verdict on a kernel from a round on, else the last one before.
fn came_of(tested: &[Tested], pick: &Picked, after: usize) -> Option<Verdict> {
    let of_pick = |tested: &&Tested| tested.judgement.revision == pick.revision;
    let (before, behind) = tested.split_at(after.min(tested.len()));
    let found = behind.iter().find(of_pick).or_else(|| before.iter().rfind(of_pick));
    found.map(|tested| tested.judgement.verdict)
}

/// The shapes tell as much as the colours.
fn mark(svg: &mut Svg, (x, y): (f64, f64), verdict: Option<Verdict>, said: &str) {
    let r = MARK;
    let (path, class) = match verdict {
        Some(Verdict::Bad) => (format!("M{x:.1} {:.1}l{r} {}h{}Z", y - r, 2.0 * r, -2.0 * r), "bad"),
        Some(Verdict::Good) => {
            let d = 2.0 * r;
            (format!("M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0Z", x - r), "good")
        }
        Some(Verdict::Skip) => {
            let (a, d) = (x - r, 2.0 * r);
            (format!("M{a:.1} {:.1}l{d} {d}m-{d} 0l{d} -{d}", y - r), "skip")
        }
        None => {
            let d = 2.0 * r;
            (format!("M{:.1} {:.1}h{d}v{d}h-{d}Z", x - r, y - r), "open")
        }
    };
    svg.titled_path(&path, class, said);
}

fn foot(svg: &mut Svg, record: &Record<'_>, history: &History, height: f64) {
    let y = height - BOTTOM + 18.0;
    let (first, tip) = (history.commit(0), history.commit(history.tip()));
    svg.text((LEFT, y), "small", &format!("oldest commit: {}", first.id.short()));
    svg.text((LEFT + CHART, y), "small end", &format!("newest: {}", tip.id.short()));
    let commits = plural(history.len(), "commit");
    svg.text(
        (LEFT, y + 18.0),
        "small dim",
        &format!(
            "{} {commits}, parents first; heights are square roots of probabilities. Job {} of {}.",
            history.len(),
            record.id,
            one_line(record.host)
        ),
    );
    if let Some(found) = ended_with(record) {
        let subject =
            history.find(&found).map(|at| one_line(&history.commit(at).subject)).unwrap_or_default();
        svg.text((LEFT, y + 36.0), "small", &format!("found: {} {}", found.short(), shortened(&subject, 80)));
    }
}
