//! Regions of a history: how likely a kernel lies in one, by what was seen of kernels nearby.
//!
//! What breaks kernels comes with one commit and goes with another. So the state of a kernel is
//! taken for a chain along the history that changes seldom, and is read from the nearest known
//! kernels: below, above, and beside where that is nearer.

use super::range::{Place, Range};

/// The part of a history that is in a region before anything was seen, and how far a state
/// lasts, as a part of the range: regions are then a ninth of it in the mean.
const SHARE: f64 = 0.1;
const REACH: f64 = 0.1;
/// It lasts no shorter for the range being short, in commits: what is broken stays so until
/// somebody notices.
const REACH_MIN: f64 = 8.0;
/// A kernel fails alone, where those around it work, this often.
const ALONE: f64 = 0.02;
/// A run says nothing this often where kernels work.
const SILENT_RUN: f64 = 0.3;
/// A kernel works all the same where its region is broken.
const LUCKY: f64 = 0.001;

/// A revision of the range whose runs are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visited {
    pub at: u32,
    /// Nothing but silent runs, this many; a kernel that was given up had none.
    pub silent: Option<u32>,
    /// It showed a title in doubt, and never the target.
    pub doubtful: bool,
}

/// What is known of a kernel: how likely that is in a region, and outside.
type Seen = (f64, f64);
const UNSEEN: Seen = (SHARE, 1.0 - SHARE);

/// The probability by commit that a visit says nothing; empty where all is well.
/// `Range::learn_places` must have been told of the visits.
pub(super) fn broken(range: &Range, visited: &[Visited]) -> Vec<f64> {
    if visited.iter().all(|visited| visited.silent.is_none()) {
        return Vec::new();
    }
    let seen = |visited: &Visited| match visited.silent {
        Some(runs) => {
            (1.0, ALONE + (1.0 - ALONE) * if runs == 0 { 0.0 } else { SILENT_RUN.powi(runs as i32) })
        }
        None => (LUCKY, 1.0 - ALONE),
    };
    let mut inside = regions(range, visited, seen);
    inside.iter_mut().for_each(|inside| *inside += (1.0 - *inside) * ALONE);
    inside
}

/// The probability by commit that a visit shows a title in doubt instead of the target; empty
/// where none was seen.
pub(super) fn doubtful(range: &Range, visited: &[Visited]) -> Vec<f64> {
    if visited.iter().all(|visited| !visited.doubtful) {
        return Vec::new();
    }
    let seen = |visited: &Visited| if visited.doubtful { (1.0, ALONE) } else { (LUCKY, 1.0 - ALONE) };
    regions(range, visited, seen)
}

fn regions(range: &Range, visited: &[Visited], seen: impl Fn(&Visited) -> Seen) -> Vec<f64> {
    let seen: Vec<Seen> = visited.iter().map(seen).collect();
    let chain = Chain { reach: (REACH * range.ancestry.len() as f64).max(REACH_MIN) };
    let nearest = nearest(range, visited);
    let mut rising: Vec<usize> = (0..visited.len()).collect();
    rising.sort_by_key(|&number| (range.sizes[visited[number].at as usize], visited[number].at));
    // What each visited kernel and all below it say of its state, and all above it.
    let (mut below, mut above) = (seen.clone(), seen.clone());
    for &number in &rising {
        let known = neighbour(range, visited, number, Place::Below);
        let before = known.map_or(UNSEEN, |(other, distance)| chain.forward(below[other], distance));
        below[number] = product(seen[number], before);
    }
    for &number in rising.iter().rev() {
        if let Some((other, distance)) = neighbour(range, visited, number, Place::Above) {
            above[number] = product(seen[number], chain.backward(above[other], distance));
        }
    }
    let inside = |[under, over, beside]: [(u32, u32); 3]| {
        let mut odds = UNSEEN;
        if under.0 != u32::MAX {
            odds = chain.forward(below[under.1 as usize], under.0);
        }
        if over.0 != u32::MAX {
            odds = product(odds, chain.backward(above[over.1 as usize], over.0));
        }
        if beside.0 < under.0.min(over.0) {
            odds = product(odds, chain.backward(seen[beside.1 as usize], beside.0));
        }
        odds.0 / (odds.0 + odds.1)
    };
    nearest.into_iter().map(inside).collect()
}

/// By commit and place, the nearest visited kernel: its distance and its number.
fn nearest(range: &Range, visited: &[Visited]) -> Vec<[(u32, u32); 3]> {
    let mut nearest = vec![[(u32::MAX, 0u32); 3]; range.ancestry.len()];
    for (number, visited) in (0u32..).zip(visited) {
        for (nearest, &(place, distance)) in nearest.iter_mut().zip(range.places(visited.at)) {
            let kept = &mut nearest[place as usize];
            if distance < kept.0 {
                *kept = (distance, number);
            }
        }
    }
    nearest
}

/// The nearest other visited kernel below or above a visited one.
fn neighbour(range: &Range, visited: &[Visited], number: usize, wanted: Place) -> Option<(usize, u32)> {
    let at = visited[number].at;
    let other = |(other, visited): (usize, &Visited)| {
        let &(place, distance) = range.places(visited.at).get(at as usize)?;
        (other != number && place == wanted).then_some((other, distance))
    };
    visited.iter().enumerate().filter_map(other).min_by_key(|&(other, distance)| (distance, other))
}

/// Two states that change into each other along the history.
struct Chain {
    reach: f64,
}

impl Chain {
    /// That a region that holds a kernel holds one this far away, and that it begins or ends between.
    fn moves(&self, distance: u32) -> (f64, f64) {
        let lasts = (-f64::from(distance) / self.reach).exp();
        (SHARE + (1.0 - SHARE) * lasts, SHARE * (1.0 - lasts))
    }

    /// The state of a kernel by that of one below it.
    fn forward(&self, (inside, outside): Seen, distance: u32) -> Seen {
        let (stays, comes) = self.moves(distance);
        (inside * stays + outside * comes, inside * (1.0 - stays) + outside * (1.0 - comes))
    }

    /// How likely each state makes what is known of another kernel.
    fn backward(&self, known: Seen, distance: u32) -> Seen {
        let (stays, comes) = self.moves(distance);
        normal((stays * known.0 + (1.0 - stays) * known.1, comes * known.0 + (1.0 - comes) * known.1))
    }
}

fn product(a: Seen, b: Seen) -> Seen {
    normal((a.0 * b.0, a.1 * b.1))
}

fn normal((inside, outside): Seen) -> Seen {
    (inside / (inside + outside), outside / (inside + outside))
}
