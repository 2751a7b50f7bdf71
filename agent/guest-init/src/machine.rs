//! The guest itself: mounts, limits, its end.

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Kind, place, options.
const MOUNTS: [(&str, &str, Option<&str>); 7] = [
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("devtmpfs", "/dev", None),
    ("tmpfs", "/tmp", Some("mode=1777")),
    ("tmpfs", "/run", Some("mode=755")),
    ("debugfs", "/sys/kernel/debug", None),
    ("tracefs", "/sys/kernel/tracing", None),
];

/// Mounts what the kernel offers. A small kernel lacks some of these; the initramfs has a
/// directory, and the most needed devices, below each.
pub fn mount_all() {
    for (kind, at, options) in MOUNTS {
        let _ = mount(Some(kind), at, Some(kind), MsFlags::empty(), options);
    }
}

/// Sets what the reproducer inherits.
pub fn prepare() {
    // A core file would go to memory that the reproducer needs.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // The only file system that a guest is sure to have room on.
    let _ = std::env::set_current_dir("/tmp");
    bring_up_loopback();
}

/// Reproducers talk to themselves over 127.0.0.1; the kernel gives `lo` that address when it comes up.
fn bring_up_loopback() {
    // A kernel without network has no socket to ask through.
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else { return };
    // SAFETY: an ifreq is plain data, valid when zeroed; the kernel reads it within its size, and
    // the socket is open.
    #[allow(unsafe_code)] // there is no safe wrapper of this request
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = libc::c_char::from_ne_bytes(*b"l");
        request.ifr_name[1] = libc::c_char::from_ne_bytes(*b"o");
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request);
    }
}

/// Prints on the console.
pub fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Ends the guest. A restart, not a power-off: that one needs ACPI, while QEMU's `-no-reboot`
/// turns every restart into its exit.
pub fn end() -> ! {
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_AUTOBOOT);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
