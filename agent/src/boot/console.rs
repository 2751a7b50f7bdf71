//! The console as it is stored: whole up to a cap, cut with a marker beyond it.

use bytes::Bytes;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use tokio::sync::mpsc;

pub struct ConsoleFile {
    file: File,
    room: u64,
    cut: bool,
    live: mpsc::Sender<Bytes>,
}

impl ConsoleFile {
    pub fn create(path: &Path, bytes_max: u64, live: mpsc::Sender<Bytes>) -> std::io::Result<ConsoleFile> {
        Ok(ConsoleFile { file: File::create(path)?, room: bytes_max, cut: false, live })
    }

    /// Stores what still fits, and shows it to whoever watches; a slow watcher misses some.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.cut {
            return Ok(());
        }
        let fits = usize::try_from(self.room).unwrap_or(usize::MAX).min(bytes.len());
        self.store(&bytes[..fits])?;
        self.room -= fits as u64;
        if fits < bytes.len() {
            self.cut = true;
            self.store(b"\n[kulprit: the console is longer than may be stored, and is cut here]\n")?;
        }
        Ok(())
    }

    fn store(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let _ = self.live.try_send(Bytes::copy_from_slice(bytes));
        self.file.write_all(bytes)
    }
}
