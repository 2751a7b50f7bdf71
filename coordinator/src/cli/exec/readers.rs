//! Whether anybody still reads what we write.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// False for a pipe whose reader has gone, and for a terminal that was closed.
pub fn is_read(stream: impl AsFd) -> bool {
    let mut asked = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    // A stream that cannot be asked is taken to be read: a write to it will tell.
    let _ = poll(&mut asked, PollTimeout::ZERO);
    let lost = PollFlags::POLLERR | PollFlags::POLLHUP;
    !asked[0].revents().is_some_and(|seen| seen.intersects(lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_goes_is_noticed() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        assert!(is_read(&writer));
        drop(reader);
        assert!(!is_read(&writer));
        assert!(is_read(std::fs::File::create("/dev/null").expect("opened")));
        assert!(is_read(tempfile::tempfile().expect("a file")));
    }
}
