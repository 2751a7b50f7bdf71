//! A log of bounded size: streamed as it comes, kept as head and tail.

use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Opens lines that are ours and not the command's.
pub const NOTE_PREFIX: &str = "kulprit: ";

/// Where output goes: to a listener as far as it keeps up, and to a file.
pub struct LogSink {
    file: File,
    path: PathBuf,
    live: mpsc::Sender<Bytes>,
    head_left: usize,
    tail: VecDeque<u8>,
    tail_max: usize,
    left_out: u64,
}

/// A finished log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub path: PathBuf,
    /// Bytes in the middle that were not kept.
    pub left_out: u64,
}

impl LogSink {
    /// Creates or empties the file at `path`, which will hold little more than `bytes_max`.
    pub fn create(path: &Path, bytes_max: usize, live: mpsc::Sender<Bytes>) -> io::Result<Self> {
        let tail_max = bytes_max / 4;
        Ok(LogSink {
            file: File::create(path)?,
            path: path.into(),
            live,
            head_left: bytes_max - tail_max,
            tail: VecDeque::new(),
            tail_max,
            left_out: 0,
        })
    }

    pub fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let head = bytes.len().min(self.head_left);
        self.file.write_all(&bytes[..head])?;
        self.head_left -= head;
        self.tail.extend(&bytes[head..]);
        let excess = self.tail.len().saturating_sub(self.tail_max);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
        // A listener that lags misses pieces of the live view, and so does one of a log that
        // goes on and on; the file has them.
        if head > 0 {
            let _ = self.live.try_send(bytes.slice(..head));
        }
        Ok(())
    }

    /// A line of our own, marked as such.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        self.write(Bytes::from(format!("{NOTE_PREFIX}{text}\n")))
    }

    /// Writes the tail behind the head.
    pub fn finish(mut self) -> io::Result<Log> {
        if self.left_out > 0 {
            write!(self.file, "\n{NOTE_PREFIX}{} bytes of the log left out here\n", self.left_out)?;
        }
        let (first, second) = self.tail.as_slices();
        self.file.write_all(first)?;
        self.file.write_all(second)?;
        Ok(Log { path: self.path, left_out: self.left_out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_its_head_and_its_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (live, mut seen) = mpsc::channel(1);
        let mut sink = LogSink::create(&path, 40, live).unwrap();
        for n in 0..20 {
            sink.write(Bytes::from(format!("line {n:03}\n"))).unwrap();
        }
        assert_eq!(sink.finish().unwrap().left_out, 180 - 40);
        let kept = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            kept,
            "line 000\nline 001\nline 002\nlin\nkulprit: 140 bytes of the log left out here\n\nline 019\n"
        );
        assert_eq!(seen.try_recv().unwrap(), "line 000\n");
    }
}
