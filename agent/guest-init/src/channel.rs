//! The line to the agent: the second serial port, or the console where there is none.

use nix::fcntl::OFlag;
use nix::sys::termios::{self, SetArg};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

pub struct Channel {
    port: Option<File>,
    kmsg: Option<File>,
    prefix: String,
    marker: String,
}

impl Channel {
    pub fn open(nonce: &str, marker: &str) -> Channel {
        let port = open("/dev/ttyS1").filter(is_a_port).or_else(|| open("/dev/console"));
        if let Some(port) = &port {
            make_raw(port);
        }
        Channel {
            port,
            kmsg: open("/dev/kmsg"),
            prefix: format!("kulprit {nonce} "),
            marker: format!("<1>kulprit {marker} "),
        }
    }

    /// Says one line, and returns when the port has sent it.
    pub fn say(&mut self, words: &str) {
        let Some(port) = &mut self.port else { return };
        let line = format!("\n{}{words}\n", self.prefix);
        // Nobody is left to tell about an error; the agent notices the silence.
        let _ = port.write_all(line.as_bytes());
        let _ = termios::tcdrain(&*port);
    }

    /// Says one line here and in the kernel's log. Two ports have no common order, so only the
    /// log tells which crash was printed before the reproducer's start and which after.
    pub fn mark(&mut self, word: &str) {
        self.say(word);
        if let Some(kmsg) = &mut self.kmsg {
            let _ = kmsg.write_all(format!("{}{word}\n", self.marker).as_bytes());
        }
    }
}

fn open(path: &str) -> Option<File> {
    OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path).ok()
}

/// The driver makes a device node for every port it could have; one without a chip refuses this.
fn is_a_port(file: &File) -> bool {
    termios::tcgetattr(file).is_ok()
}

fn make_raw(port: &File) {
    if let Ok(mut settings) = termios::tcgetattr(port) {
        termios::cfmakeraw(&mut settings);
        let _ = termios::tcsetattr(port, SetArg::TCSANOW, &settings);
    }
}
