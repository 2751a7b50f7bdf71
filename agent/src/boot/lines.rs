//! Lines of a guest's serial ports, and the words that our init says in them.

/// Longer lines are none of ours; their rest is dropped so that a guest cannot fill memory.
const LINE_BYTES_MAX: usize = 4096;

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// Complete lines so far.
    pub count: usize,
}

impl Lines {
    /// Calls `each` with the index and text of every line that `bytes` completes.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(usize, &str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let complete = piece.last() == Some(&b'\n');
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if complete {
                each(self.count, String::from_utf8_lossy(&self.partial).trim_end());
                self.count += 1;
                self.partial.clear();
            }
        }
    }
}

/// What init says; `guest-init/src/main.rs` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The build id of the kernel that runs.
    Kernel(String),
    Up,
    Settled,
    Start,
    Alive,
    /// The reproducer ended, or was ended; how is in the console's interest, not in the outcome's.
    Ended,
    Done,
    CannotStart(String),
}

/// Reads a word that is said with `nonce`; anything else is the guest's own talk.
pub fn word(line: &str, nonce: &str) -> Option<Word> {
    let rest = line.split_once("kulprit ")?.1.strip_prefix(nonce)?.strip_prefix(' ')?;
    match rest.split_once(' ').unwrap_or((rest, "")) {
        ("kernel", id) => Some(Word::Kernel(id.to_owned())),
        ("up", "") => Some(Word::Up),
        ("settled", "") => Some(Word::Settled),
        ("start", "") => Some(Word::Start),
        ("alive", "") => Some(Word::Alive),
        ("exit", _) | ("timeout", "") => Some(Word::Ended),
        ("done", "") => Some(Word::Done),
        ("cannot-start", reason) => Some(Word::CannotStart(reason.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_need_the_nonce() {
        let cases = [
            ("kulprit n1 up", Some(Word::Up)),
            ("kulprit n1 kernel 0a1b", Some(Word::Kernel("0a1b".into()))),
            ("[    2.808048] kulprit n1 start", Some(Word::Start)),
            ("kulprit n1 exit code 3", Some(Word::Ended)),
            ("kulprit n1 exit signal 11", Some(Word::Ended)),
            ("kulprit n1 timeout", Some(Word::Ended)),
            ("kulprit n1 cannot-start No such file", Some(Word::CannotStart("No such file".into()))),
            ("kulprit n2 done", None),
            ("kulprit n1", None),
            ("kulprit n11 done", None),
            ("kulprit  done", None),
            ("kulprit n1 dance", None),
            ("done", None),
        ];
        for (line, expected) in cases {
            assert_eq!(word(line, "n1"), expected, "{line}");
        }
    }

    #[test]
    fn lines_come_whole_however_the_bytes_are_cut() {
        let text = b"one\r\ntwo\n\nthree";
        for size in 1..=text.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for chunk in text.chunks(size) {
                lines.feed(chunk, |index, line| seen.push((index, line.to_owned())));
            }
            assert_eq!(seen, [(0, "one".into()), (1, "two".into()), (2, String::new())]);
        }
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.feed(&[b'x'; 1000], |_, _| panic!("no line ended"));
        }
        assert_eq!(lines.partial.len(), LINE_BYTES_MAX);
        lines.feed(b"\n", |_, line| assert_eq!(line.len(), LINE_BYTES_MAX));
    }
}
