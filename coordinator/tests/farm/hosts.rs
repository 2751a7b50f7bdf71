//! Two hosts that go with the test: network namespaces with a veth pair between them. Needs root.

use super::command;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Hosts {
    names: [String; 2],
}

pub const ADDRESSES: [&str; 2] = ["10.231.77.1", "10.231.77.2"];

static MADE: AtomicU32 = AtomicU32::new(0);

impl Hosts {
    /// `None` where namespaces cannot be made.
    pub fn new() -> Option<Hosts> {
        let number = MADE.fetch_add(1, Ordering::SeqCst);
        let hosts = Hosts { names: ["a", "b"].map(|it| format!("klp-{it}-{}-{number}", std::process::id())) };
        for name in &hosts.names {
            if !run("ip", &["netns", "add", name]) {
                eprintln!("skipped: network namespaces cannot be made here");
                return None;
            }
            assert!(run("ip", &["-n", name, "link", "set", "lo", "up"]));
        }
        let [a, b] = &hosts.names;
        let peer = ["link", "add", "veth0", "netns", a, "type", "veth", "peer", "name", "veth0", "netns", b];
        assert!(run("ip", &peer));
        for (name, address) in hosts.names.iter().zip(ADDRESSES) {
            assert!(run("ip", &["-n", name, "addr", "add", &format!("{address}/24"), "dev", "veth0"]));
            assert!(run("ip", &["-n", name, "link", "set", "veth0", "up"]));
        }
        Some(hosts)
    }

    /// A program of ours on one of them; `ip netns exec` becomes the program, so this is its process.
    pub fn on(&self, host: usize, program: &str) -> Command {
        let ours = command(program);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[host]]).arg(ours.get_program());
        command
    }

    /// Takes the line between them down, or puts it up again.
    pub fn link(&self, state: &str) {
        assert!(run("ip", &["-n", &self.names[1], "link", "set", "veth0", state]));
    }

    /// Drops what a host sends and gets, by nftables.
    pub fn drop_packets(&self, host: usize) {
        self.add_rules(host, &[("output", "oifname veth0 drop"), ("input", "iifname veth0 drop")]);
    }

    /// Drops what a host says, but not that it has heard: whoever is not told so sends nothing new.
    pub fn drop_replies(&self, host: usize) {
        self.add_rules(host, &[("output", "oifname veth0 meta length gt 80 drop")]);
    }

    fn add_rules(&self, host: usize, rules: &[(&str, &str)]) {
        let mut all = vec!["add table inet faults".to_owned()];
        for (hook, rule) in rules {
            all.push(format!("add chain inet faults {hook} {{ type filter hook {hook} priority 0; }}"));
            all.push(format!("add rule inet faults {hook} {rule}"));
        }
        self.nft(host, &all.join("; "));
    }

    pub fn let_packets(&self, host: usize) {
        self.nft(host, "delete table inet faults");
    }

    fn nft(&self, host: usize, rules: &str) {
        let done = run("ip", &["netns", "exec", &self.names[host], "nft", rules]);
        assert!(done, "nft {rules}: apt-get install nftables");
    }

    /// Makes the line slow and lossy in both directions, and says how: by tc netem, or where the
    /// kernel has none, by tc tbf and nftables, which queue and drop but delay nothing else.
    pub fn slow(&self) -> &'static str {
        let qdisc = |name: &str, how: &str| {
            let fixed = ["-n", name, "qdisc", "add", "dev", "veth0", "root"];
            run("tc", &[&fixed, how.split(' ').collect::<Vec<_>>().as_slice()].concat())
        };
        if self.names.iter().all(|name| qdisc(name, "netem delay 200ms 50ms loss 2% rate 2mbit")) {
            return "tc netem, 200 ± 50 ms, 2 % lost, 2 Mbit/s";
        }
        for (host, name) in self.names.iter().enumerate() {
            assert!(qdisc(name, "tbf rate 256kbit burst 4kb latency 800ms"), "tc: apt-get install iproute2");
            let chain = "add chain inet faults output { type filter hook output priority 0; }";
            let rule = "add rule inet faults output oifname veth0 numgen random mod 100 < 5 drop";
            self.nft(host, &["add table inet faults", chain, rule].join("; "));
        }
        "tc tbf, 256 kbit/s, and nftables, 5 % lost (no netem in this kernel)"
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            run("ip", &["netns", "del", name]);
        }
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
