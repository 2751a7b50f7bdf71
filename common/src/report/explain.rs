//! Rounds in words: what was believed, what was picked and why, what was learned.

use super::words::{one_line, plural};
use crate::bisect::{Belief, Picked, Role, Round, Why};

/// The likeliest commit is named once it has this many times an even share.
const STANDS_OUT: f64 = 2.0;
/// Less is no change.
const CHANGE_MIN_BITS: f64 = 0.005;

/// What is searched for: a crash, or where a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Crash,
    Command,
}

impl Subject {
    fn must_show(self) -> &'static str {
        match self {
            Subject::Crash => "the crash must show at this end",
            Subject::Command => "the command must fail at this end",
        }
    }

    fn must_not_show(self) -> &'static str {
        match self {
            Subject::Crash => "the crash must not show at this end",
            Subject::Command => "the command must pass at this end",
        }
    }

    fn to_show(self) -> &'static str {
        match self {
            Subject::Crash => "to crash",
            Subject::Command => "to fail",
        }
    }

    fn proof(self) -> &'static str {
        match self {
            Subject::Crash => "the certificate",
            Subject::Command => "a sure answer",
        }
    }
}

/// What became known between a round and the next; it falls where something unlikely was seen.
pub fn learned(rounds: &[Round], at: usize) -> Option<f64> {
    let (before, behind) = (rounds.get(at)?.belief.as_ref()?, rounds.get(at + 1)?.belief.as_ref()?);
    Some(before.unknown_bits - behind.unknown_bits)
}

/// A round as lines of a log, without their marks.
pub fn lines(rounds: &[Round], at: usize, subject: Subject) -> Vec<String> {
    let round = &rounds[at];
    let mut lines = Vec::new();
    if let Some(belief) = &round.belief {
        let name = if round.picks.is_empty() { "the end".into() } else { format!("round {}", at + 1) };
        let since = at.checked_sub(1).and_then(|before| learned(rounds, before));
        let since = since.map(|bits| format!("; {}", learned_words(bits, at))).unwrap_or_default();
        lines.push(format!("{name}: {}{since}", known(belief)));
    }
    lines.extend(round.picks.iter().map(|pick| format!("why {}", reason(pick, subject))));
    lines
}

/// `6.33 bits unknown, 80 suspects; likeliest 12ab34cd56ef 9%`.
pub fn known(belief: &Belief) -> String {
    let suspects = plural(belief.suspects, "suspect");
    let mut text = format!("{}, {} {suspects}", unknown(belief), belief.suspects);
    let likeliest = belief.likeliest.first();
    let even = 1.0 / belief.suspects.max(1) as f64;
    let stands_out = |probability: f64| probability >= (STANDS_OUT * even).min(0.5);
    if let Some(likeliest) = likeliest.filter(|it| stands_out(it.probability)) {
        text.push_str(&format!(
            "; likeliest {} {}",
            likeliest.revision.short(),
            percent(likeliest.probability)
        ));
    }
    if belief.nothing >= 0.01 {
        text.push_str(&format!("; none of the range {}", percent(belief.nothing)));
    }
    text
}

pub fn unknown(belief: &Belief) -> String {
    format!("{:.2} bits unknown", belief.unknown_bits.max(0.0))
}

fn learned_words(bits: f64, round: usize) -> String {
    match bits {
        bits if bits.abs() < CHANGE_MIN_BITS => format!("nothing learned since round {round}"),
        bits if bits < 0.0 => format!("{:.2} bits less is known than in round {round}", -bits),
        bits => format!("{bits:.2} bits learned since round {round}"),
    }
}

/// The kernel, why it is tried, and what that is expected to tell.
pub fn reason(pick: &Picked, subject: Subject) -> String {
    let why = match (pick.why, &pick.role) {
        (Why::Start, _) => subject.must_show().into(),
        (Why::End, Role::GoodEnd) => subject.must_not_show().into(),
        (Why::End, _) => "it must show the crash, since both trees hold it".into(),
        (Why::Release, Role::Release(tag)) => format!("{} may be free of the crash", one_line(tag)),
        (Why::Release, _) => "this release may be free of the crash".into(),
        (Why::Split, _) => "it tells most for its cost".into(),
        (Why::Ahead, _) => format!("there is room, and {} may need it", subject.proof()),
        (Why::Certificate, _) => format!("{} needs it", subject.proof()),
    };
    let expected = match (pick.bits, pick.shows) {
        (Some(bits), Some(shows)) => {
            format!("; {:.2} bits expected, {} {}", bits.max(0.0), percent(shows), subject.to_show())
        }
        _ => String::new(),
    };
    format!("{}: {why}{expected}", kernel(pick))
}

fn kernel(pick: &Picked) -> String {
    match &pick.role {
        Role::Revert(commit) => format!("the bad end without {}", commit.short()),
        _ => pick.revision.short(),
    }
}

/// A probability for people: never a round number that it is not.
pub fn percent(probability: f64) -> String {
    match probability * 100.0 {
        percent if percent >= 99.95 && probability < 1.0 => ">99.9%".into(),
        percent if percent > 99.0 && percent < 99.95 => format!("{percent:.1}%"),
        percent if percent > 0.0 && percent < 0.5 => "<1%".into(),
        percent => format!("{percent:.0}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percentages_do_not_claim_what_is_not() {
        for (probability, words) in [
            (0.0, "0%"),
            (1e-9, "<1%"),
            (0.034, "3%"),
            (0.5, "50%"),
            (0.993, "99.3%"),
            (0.99999, ">99.9%"),
            (1.0, "100%"),
        ] {
            assert_eq!(percent(probability), words);
        }
    }
}
