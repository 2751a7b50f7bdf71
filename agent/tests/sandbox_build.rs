//! Makefiles that try to break out, through the agent's own way of building: whatever they do,
//! nothing of the host is read or changed, nothing stays behind, and nothing but a compile error is
//! evidence against the kernel. docs/sandbox.md lists what each test holds up.

#[path = "sandbox/memory.rs"]
mod memory;
mod sandbox;

use kulprit_common::outcome::InfraClass;
use memory::memory_mib;
use sandbox::{DISK_MIB, Host, MEMORY_MIB, SECRET, Source, built, failed, infra};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What ends an attack's script, so that its log is kept: a compile error, on the stream of all
/// else that is printed, since two streams come in any order.
const OVER: &str = "echo '/src/a.c:1:1: error: over'; exit 1\n";

#[tokio::test]
async fn nothing_of_the_host_is_in_reach() {
    let Some(host) = Host::new("reach").await else { return };
    let source = Source::new(&host, "linux.git");
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let key = host.state().join("identity/key.pem");
    let (key, state) = (key.display(), host.state().display());
    let script = format!(
        r#"
try() {{ what=$1; shift; if "$@" >/tmp/out 2>/tmp/err; then echo "BROKE $what: $(head -c 200 /tmp/out)"; fi; }}
cd /build
ln -s {key} stolen; ln -s {state} way
try 'reads the key' cat {key}
try 'reads the key through a symlink' cat stolen
try 'reads the key through init' cat /proc/1/root{key}
try 'lists the state directory' ls -A {state} way/identity /build/../../.. -d {state}
for file in /src/x /kulprit/x /x /etc/x /usr/x /var/x /sys/x /proc/sys/kernel/core_pattern /src/Makefile /dev/mem; do
    try "writes $file" sh -c "echo x >$file"
done
try 'makes a device' mknod /build/disk b 254 0
try 'makes a device in /tmp' mknod /tmp/mem c 1 1
try 'mounts' mount -t tmpfs tmpfs /build
try 'mounts anew' mount -o remount,rw /src
try 'becomes root' chroot /build true
try 'has a new user namespace' unshare -U -r true
try 'has a new network' unshare -n true
try 'sets the clock' date -s 2001-01-01
try 'speaks to the engine' ls /var/run/docker.sock /run/docker.sock /run/containerd
try 'sees processes of the host' test "$(ls /proc | grep -c '^[0-9]')" -gt 30
for address in 127.0.0.1 172.17.0.1 10.0.0.1 8.8.8.8; do
    try "reaches $address" timeout 2 bash -c "exec 3<>/dev/tcp/$address/{port}"
done
try 'resolves names' timeout 2 getent hosts deb.debian.org
try 'opens a raw socket' python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'
try 'opens a packet socket' python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'
try 'adds a key' python3 -c 'import ctypes; c = ctypes.CDLL(None); raise SystemExit(c.syscall(248, b"user", b"x", b"y", 1, -3) < 0)'
try 'traces the host' python3 -c 'import ctypes; c = ctypes.CDLL(None); raise SystemExit(c.syscall(298, 0, 0, -1, -1, 0) < 0)'
echo "user $(id -u) $(id -g) $(id -G)"
echo "interfaces $(ls /sys/class/net | tr '\n' ' ')"
grep -E '^(NoNewPrivs|Seccomp|CapInh|CapPrm|CapEff|CapBnd|CapAmb):' /proc/self/status
cut -d' ' -f5 /proc/self/mountinfo | grep -v -E '^/(proc|sys|dev)(/|$)' | sort | tr '\n' ' ' | sed 's/^/mounts /'; echo
env | cut -d= -f1 | sort | tr '\n' ' ' | sed 's/^/environment /'; echo
{OVER}"#
    );
    let (message, build) = failed(host.attack(&source, &script, 60).await);
    let log = host.log(&build);
    assert_eq!(message, "a.c:1:1: error: over", "{log}");
    assert!(!log.contains("BROKE"), "{log}");
    let none = "0".repeat(16);
    let caps = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| format!("{name}:\t{none}"));
    let (uid, gid) = kulprit_agent::container::container_user();
    assert_ne!(uid, 0);
    let expected = [
        format!("user {uid} {gid} {gid}"),
        "interfaces lo ".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
        "Seccomp:\t2".to_owned(),
    ];
    for line in expected.iter().chain(&caps) {
        assert!(log.lines().any(|said| said == line), "no {line:?} in {log}");
    }
    let mounts = log.lines().find_map(|line| line.strip_prefix("mounts ")).unwrap();
    let engines = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/"];
    let ours: Vec<&str> = mounts.split_whitespace().filter(|path| !engines.contains(path)).collect();
    assert_eq!(ours, ["/build", "/ccache", "/kulprit", "/src", "/tmp"], "{log}");
    assert!(!log.contains(SECRET), "{log}");
    assert!(listener.accept().is_err(), "somebody came through");
    assert_eq!(fs::read_to_string(host.state().join("identity/key.pem")).unwrap(), SECRET);
    host.assert_nothing_left().await;
}

#[tokio::test]
async fn processes_without_end_end_with_the_container() {
    let Some(host) = Host::new("forks").await else { return };
    let source = Source::new(&host, "linux.git");
    let marker = format!("{}.4711", 3000 + std::process::id());
    // It hides what the shell would say, and claims a compile error.
    let bomb = format!("while sleep {marker} & do :; done 2>/dev/null\n{OVER}");
    let loud = format!("while sleep {marker} & do :; done\n{OVER}");
    for script in [&bomb, &loud] {
        let why = infra(host.attack(&source, script, 20).await);
        let classes = [InfraClass::Limit, InfraClass::Memory, InfraClass::Timeout];
        assert!(classes.contains(&why.class), "{why:?}");
    }
    // Detached from everything, as daemons are.
    let daemon = format!("setsid nohup sleep {marker} >/dev/null 2>&1 &\n{OVER}");
    failed(host.attack(&source, &daemon, 20).await);
    host.assert_nothing_left().await;
    assert!(!processes(&marker), "processes were left");
}

/// Whether a process has this word among its arguments.
fn processes(word: &str) -> bool {
    let arguments = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let mut all = fs::read_dir("/proc").unwrap().flatten().map(arguments);
    all.any(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()))
}

#[tokio::test]
async fn who_fills_the_disk_is_stopped_and_leaves_nothing() {
    let Some(host) = Host::new("disk").await else { return };
    let source = Source::new(&host, "linux.git");
    let honest = source.commit(&[]);
    let beyond = format!("more than {DISK_MIB} MiB of files in /build");
    // Were nobody to stop it, it would still leave the machine that tests run on some room.
    let fill = "n=0; while [ $n -lt 32 ] && dd if=/dev/zero of=/build/f$n bs=1M count=64 2>/dev/null; do n=$((n+1)); done\n";
    let deep =
        "python3 -c \"import os\nos.chdir('/build')\nfor _ in range(6000): os.mkdir('d'); os.chdir('d')\"\n";
    let cases = [
        (format!("{fill}{OVER}"), beyond.as_str()),
        // Too quick to be seen while it runs, and a success besides.
        (format!("dd if=/dev/zero of=/build/f bs=1M count={} 2>/dev/null", DISK_MIB + 50), beyond.as_str()),
        (deep.to_owned(), "directories nested without end in /build"),
        // A tmpfs of its own, which is no disk of the agent's: that would set the agent aside.
        (
            format!(
                "dd if=/dev/zero of=/tmp/f bs=1M count=200 2>/dev/null; echo 'as: No space left on device'\n{OVER}"
            ),
            "No space left on device",
        ),
        (format!("truncate -s 100G /build/f\n{OVER}"), "File size limit exceeded"),
    ];
    for (script, reason) in cases {
        let (slot, revision) = (host.slot(), source.commit(&[("attack.sh", &script)]));
        let why = infra(host.build(slot, &source, &revision, 60).await);
        assert!(why.class == InfraClass::Limit && why.reason.contains(reason), "{why:?}");
        assert!(disk_mib(&host.objects(slot)) < 10, "it stays on the disk: {reason}");
        let next = host.build(slot, &source, &honest, 60).await;
        assert!(built(&next), "the slot is fit for the next build: {next:?}");
    }
    host.assert_nothing_left().await;
}

fn disk_mib(dir: &Path) -> u64 {
    let said = std::process::Command::new("du").args(["-sm", "--"]).arg(dir).output().unwrap().stdout;
    String::from_utf8_lossy(&said).split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_compile_killed_for_memory_is_never_a_verdict() {
    let Some(host) = Host::new("memory").await else { return };
    let source = Source::new(&host, "linux.git");
    let eaten = "gcc -x c -c -o /tmp/x.o - </dev/zero";
    let cases = [
        format!("{eaten}\n"),
        // What the compiler said is hidden behind what looks like the kernel's fault.
        format!("{eaten} >/dev/null 2>&1\n{OVER}"),
        format!("tail /dev/zero >/dev/null 2>&1\n{OVER}"),
    ];
    for script in cases {
        let why = infra(host.attack(&source, &script, 60).await);
        assert_eq!(why.class, InfraClass::Memory, "{script}: {why:?}");
        assert_eq!(why.reason, format!("it needed more than the {MEMORY_MIB} MiB of memory it may have"));
    }
    host.assert_nothing_left().await;
    println!(
        "FAULT|hung or silent guest; QEMU killed; OOM-killed compile|compile killed for memory: infra (memory)|a_compile_killed_for_memory_is_never_a_verdict"
    );
}

#[tokio::test]
async fn what_is_no_kernel_is_never_sent_off() {
    let Some(host) = Host::new("outputs").await else { return };
    let source = Source::new(&host, "linux.git");
    let key = host.state().join("identity/key.pem");
    let key = key.display();
    let image = "/build/arch/x86/boot/bzImage";
    let cases = [
        format!("ln -s /etc/shadow {image}"),
        format!("ln -s {key} {image}"),
        format!(
            "rmdir /build/arch/x86/boot; ln -s {} /build/arch/x86/boot",
            host.state().join("identity").display()
        ),
        format!("mkfifo {image}"),
        format!("mkdir {image}"),
        format!("truncate -s 15G {image}"),
        "truncate -s 15G /build/vmlinux".to_owned(),
        "rm /build/vmlinux; mkfifo /build/vmlinux; touch /build/arch/x86/boot/bzImage".to_owned(),
        "rm -f /build/.config; mkfifo /build/.config; touch -d 2001-01-01 /build/vmlinux".to_owned(),
        "truncate -s 15G /build/.config".to_owned(),
        "echo no ELF >/build/vmlinux".to_owned(),
    ];
    for attack in cases {
        let started = Instant::now();
        let script = format!("mkdir -p /build/arch/x86/boot\n{attack}\nexit 0\n");
        let why = infra(host.attack(&source, &script, 60).await);
        assert!([InfraClass::Internal, InfraClass::Limit].contains(&why.class), "{attack}: {why:?}");
        assert!(started.elapsed() < Duration::from_secs(40), "{attack}: {:?}", started.elapsed());
    }
    assert_eq!(host.stored(), Vec::<Vec<u8>>::new(), "nothing was worth sending");
    host.assert_nothing_left().await;
}

#[tokio::test]
async fn names_in_a_tree_lead_nowhere_else() {
    let Some(host) = Host::new("names").await else { return };
    let source = Source::new(&host, "linux.git");
    for (name, directory) in [("..", true), ("../evil", false), ("/tmp/evil", false), (".", true)] {
        let revision = source.commit_named(name, directory);
        let why = infra(host.build(host.slot(), &source, &revision, 60).await);
        assert_eq!(why.class, InfraClass::Source, "{name:?}: {why:?}");
    }
    let found = std::process::Command::new("find").arg(host.dir.path()).args(["-name", "evil"]).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "", "something was written");
}

#[tokio::test]
async fn what_one_repository_leaves_no_other_finds() {
    let Some(host) = Host::new("poison").await else { return };
    let (hostile, other) = (Source::new(&host, "fork.git"), Source::new(&host, "linux.git"));
    let poison = "\
mkdir -p /ccache/poison; cp /build/vmlinux /ccache/poison/poison; touch /build/poison /tmp/poison /dev/shm/poison\n\
echo 'prefix_command = /build/poison' >/ccache/ccache.conf\n";
    let slot = host.slot();
    let planted = host.build(slot, &hostile, &hostile.commit(&[("attack.sh", poison)]), 60).await;
    assert!(built(&planted), "{planted:?}");
    assert!(host.cache().join("seeds").read_dir().unwrap().count() > 0, "its tree became a seed");
    let look = format!(
        "find / -xdev -name '*poison*' 2>/dev/null; find /build /ccache /tmp -name '*poison*'; ccache -p | grep poison\n{OVER}"
    );
    for slot in [slot, host.slot()] {
        let looking = other.commit(&[("attack.sh", &look)]);
        let (_, build) = failed(host.build(slot, &other, &looking, 60).await);
        let log = host.log(&build);
        assert!(!log.contains("poison"), "{log}");
        assert!(built(&host.build(slot, &other, &other.commit(&[]), 60).await));
    }
    host.assert_nothing_left().await;
}

#[tokio::test]
async fn a_wrecked_compilers_cache_is_infra_and_mended() {
    let Some(host) = Host::new("wreck").await else { return };
    let source = Source::new(&host, "linux.git");
    let honest = source.commit(&[]);
    // The first build makes a seed and uses no cache.
    let slot = host.slot();
    assert!(built(&host.build(slot, &source, &honest, 60).await));
    for wreck in [
        "echo nonsense >/ccache/ccache.conf",
        "rm -rf /ccache/*; touch /ccache/tmp; for d in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do touch /ccache/$d; done",
    ] {
        let wrecked = source.commit(&[("attack.sh", wreck)]);
        assert!(built(&host.build(slot, &source, &wrecked, 60).await));
        // What is compiled anew goes through the cache.
        let changed = source.commit(&[("a.c", &format!("int main(void) {{ return 1; }} // {wreck}\n"))]);
        let ended = host.build(slot, &source, &changed, 60).await;
        if !built(&ended) {
            let why = infra(ended);
            assert_eq!(why.class, InfraClass::Toolchain, "{why:?}");
            assert!(built(&host.build(slot, &source, &changed, 60).await), "it is mended");
        }
    }
    host.assert_nothing_left().await;
}

#[tokio::test]
async fn a_log_without_end_is_cut_and_takes_no_memory() {
    let Some(host) = Host::new("log").await else { return };
    let source = Source::new(&host, "linux.git");
    let before = memory_mib();
    let flood = format!("yes 'the makefile talks and talks' | head -c 300000000; echo; sleep 1\n{OVER}");
    let started = Instant::now();
    let (message, build) = failed(host.attack(&source, &flood, 90).await);
    eprintln!("300 MB of log in {:?}, memory {before} to {} MiB", started.elapsed(), memory_mib());
    assert_eq!(message, "a.c:1:1: error: over", "the tail is kept");
    assert!(build.log.size < 17 << 20, "{}", build.log.size);
    assert!(memory_mib() < before + 200, "{before} to {} MiB", memory_mib());
    let endless = infra(host.attack(&source, "exec yes", 5).await);
    assert_eq!(endless.class, InfraClass::Timeout);
    host.assert_nothing_left().await;
}
