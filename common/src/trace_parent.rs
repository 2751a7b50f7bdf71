//! Names of traces and spans, in the form of W3C Trace Context. They follow from what they are of, so
//! that all who work on a job's revision name its trace alike, without having spoken.

use crate::id::{Attempt, JobId, RevisionId};
use crate::signature::Hasher;
use std::fmt;
use std::str::FromStr;

/// A span and the trace it belongs to: the parent of whatever is done below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceParent {
    pub trace: [u8; 16],
    pub span: [u8; 8],
}

/// Text that is no `traceparent` of version 00.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form 00-TRACE-SPAN-FLAGS, with 32, 16 and 2 lowercase hex digits")]
pub struct InvalidTraceParent(pub String);

impl TraceParent {
    /// The topmost span of what is done for a job's revision; without one, of its preparations.
    pub fn of(job: &JobId, revision: Option<&RevisionId>) -> Self {
        let mut hasher = Hasher::new("kulprit trace 1");
        hasher.field(job.as_str().as_bytes());
        hasher.field(revision.map_or(&[], RevisionId::as_bytes));
        let digest = hasher.finish();
        let mut top = TraceParent { trace: [0; 16], span: [0; 8] };
        top.trace.copy_from_slice(&digest.as_bytes()[..16]);
        top.span.copy_from_slice(&digest.as_bytes()[16..24]);
        top
    }

    /// The span of an attempt below this one.
    pub fn attempt(&self, attempt: Attempt) -> Self {
        self.child(&format!("attempt {attempt}"))
    }

    /// A span below this one; `name` tells it from its sisters.
    pub fn child(&self, name: &str) -> Self {
        let mut hasher = Hasher::new("kulprit span 1");
        hasher.field(&self.trace);
        hasher.field(&self.span);
        hasher.field(name.as_bytes());
        let mut child = *self;
        child.span.copy_from_slice(&hasher.finish().as_bytes()[..8]);
        child
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", hex::encode(self.trace), hex::encode(self.span))
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        parse(text).ok_or_else(|| InvalidTraceParent(text.chars().take(80).collect()))
    }
}

fn parse(text: &str) -> Option<TraceParent> {
    let parts: Vec<&str> = text.split('-').collect();
    let ["00", trace, span, flags] = parts[..] else { return None };
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let mut parent = TraceParent { trace: [0; 16], span: [0; 8] };
    let (mut flag, zero) = ([0; 1], parent);
    hex::decode_to_slice(trace, &mut parent.trace).ok()?;
    hex::decode_to_slice(span, &mut parent.span).ok()?;
    hex::decode_to_slice(flags, &mut flag).ok()?;
    (is_lower && parent.trace != zero.trace && parent.span != zero.span).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_follow_from_job_and_revision() {
        let job = |text: &str| text.parse::<JobId>().unwrap();
        let revision = RevisionId::from_bytes([7; 20]);
        let top = TraceParent::of(&job("j-one"), Some(&revision));
        assert_eq!(top, TraceParent::of(&job("j-one"), Some(&revision)));
        assert_ne!(top.trace, TraceParent::of(&job("j-two"), Some(&revision)).trace);
        assert_ne!(top.trace, TraceParent::of(&job("j-one"), None).trace);
        let (first, second) = (top.attempt(Attempt(1)), top.attempt(Attempt(2)));
        assert_eq!((first.trace, second.trace), (top.trace, top.trace));
        assert!(first.span != second.span && first.span != top.span);
    }

    #[test]
    fn the_text_form_is_read_back_and_nothing_else() {
        let top = TraceParent::of(&"j".parse().unwrap(), None);
        assert_eq!(top.to_string().parse(), Ok(top));
        let zeros = format!("00-{}-{}-01", "0".repeat(32), "1".repeat(16));
        let upper = top.to_string().to_uppercase();
        let longer = format!("{top}-x");
        for wrong in ["", "00", &zeros, &upper, &longer, "00-é-1-01", &top.to_string()[..54]] {
            assert!(wrong.parse::<TraceParent>().is_err(), "{wrong}");
        }
    }
}
