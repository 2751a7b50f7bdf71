//! Lines that are cut, lossy and slow between two hosts, both of which go on living: network
//! namespaces with a veth pair, cut with `ip link` and nftables, slowed with tc netem. Needs root.

mod farm;

use farm::hosts::{ADDRESSES, Hosts};
use farm::planted::Shape;
use farm::small::{Small, started};
use farm::{LONG, figure, leftovers, text, wait_for};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const CUT: &str = "network cut, both sides alive";
const LOST: &str = "reply to Complete lost";
const SLOW: &str = "artifact store slow, 503, gone for 2 min";

/// A farm whose coordinator is on one host, with agents on both.
struct Across {
    dir: tempfile::TempDir,
    small: Small,
    hosts: Hosts,
    running: Vec<Child>,
}

impl Drop for Across {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in ["coordinator", "far", "near"].into_iter().filter(|_| std::thread::panicking()) {
            eprintln!("{name}:\n{}", self.said(name));
        }
    }
}

impl Across {
    fn new(shape: Shape) -> Option<Across> {
        let hosts = Hosts::new()?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let small = Small::new(dir.path(), shape, 0)?;
        let mut it = Across { dir, small, hosts, running: Vec::new() };
        let state = it.path("coordinator").to_string_lossy().into_owned();
        it.kulprit(&["ca", "init", "--operator", "olga", "--state", &state, "--coordinator", &it.url()]);
        let mut command = it.hosts.on(0, "kulprit-coordinator");
        command.args(["--listen", "0.0.0.0:7453", "--listen-artifacts", "0.0.0.0:7454", "--state", &state]);
        it.spawn("coordinator", command);
        wait_for("the coordinator", Duration::from_secs(30), || it.said("coordinator").contains("serving"));
        Some(it)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("https://{}:7453", ADDRESSES[0])
    }

    fn spawn(&mut self, name: &str, mut command: Command) -> u32 {
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let child = command.stderr(log).spawn().expect("it starts");
        self.running.push(child);
        self.running.last().expect("it is there").id()
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// `kulprit` as the operator, on the coordinator's host.
    fn kulprit(&self, args: &[&str]) -> String {
        let mut command = self.hosts.on(0, "kulprit");
        let output = command.args(args).env("KULPRIT_CREDENTIALS", self.path("olga")).output();
        let output = output.expect("kulprit runs");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.kulprit(&[args, &["-o", "json"]].concat())).expect("it is JSON")
    }

    /// Starts an agent; `name` is unique on this machine, for its containers are known by it.
    fn agent(&mut self, host: usize, log: &str) -> (String, u32) {
        let name = format!(
            "{log}-{}",
            self.dir.path().file_name().expect("a name").to_string_lossy().replace('.', "")
        );
        let token = self.kulprit(&["token", "create", "--role", "agent"]);
        let mut command = self.hosts.on(host, "kulprit-agent");
        self.small.agent(&mut command, &name.to_lowercase(), &self.url());
        command.env("KULPRIT_JOIN", token.trim());
        let pid = self.spawn(log, command);
        wait_for("the agent", Duration::from_secs(60), || self.said(log).contains("at work"));
        (name.to_lowercase(), pid)
    }

    fn submit(&self) {
        let job = self.small.planted.job("job");
        self.kulprit(&["bisect", "start", &job.to_string_lossy()]);
    }

    fn wait_for_start(&self, log: &str, what: &str, limit: Duration) -> String {
        let find = || started(&self.said(log)).into_iter().find(|it| it.starts_with(what));
        wait_for(&format!("{what} at {log}"), limit, || find().is_some());
        find().expect("it was waited for")
    }

    fn wait_for_culprit(&self) {
        let show = || self.json(&["bisect", "show", "1"]);
        wait_for("the end of a job", LONG, || !show()["ending"].is_null());
        assert_eq!(show()["ending"]["culprit"], self.small.planted.culprit.to_string(), "{}", show());
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("it is there");
}

/// The agent's container is gone before anybody else is given what it was for.
fn cut_off(how: &str, cut: impl FnOnce(&Hosts), mend: impl FnOnce(&Hosts)) {
    let Some(mut farm) = Across::new(Shape { commits: 3, culprit: 1, build_s: 240, build_mib: 0 }) else {
        return;
    };
    let (far, _) = farm.agent(1, "far");
    farm.submit();
    let lost = farm.wait_for_start("far", "build:", LONG);
    wait_for("its container", LONG, || !leftovers(&[&far]).is_empty());
    let (near, _) = farm.agent(0, "near");
    cut(&farm.hosts);
    let begun = Instant::now();
    let (mut stopped, mut freed) = (None, None);
    while stopped.is_none() || freed.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(70), "stopped {stopped:?}, freed {freed:?}");
        // The one that must be first is looked at last.
        freed = freed.or_else(|| started(&farm.said("near")).contains(&lost).then(|| begun.elapsed()));
        stopped = stopped.or_else(|| leftovers(&[&far]).is_empty().then(|| begun.elapsed()));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (stopped, freed) = (stopped.expect("it has"), freed.expect("it was"));
    assert!(stopped < freed, "stopped after {stopped:?}, given away after {freed:?}");
    mend(&farm.hosts);
    let mended = Instant::now();
    wait_for("the agent to be back", Duration::from_secs(60), || {
        let list = farm.json(&["agent", "list"]);
        list.as_array()
            .is_some_and(|all| all.iter().any(|it| it["id"] == far.as_str() && it["state"] == "online"))
    });
    let back = mended.elapsed().as_secs_f64();
    farm.kulprit(&["bisect", "cancel", "1"]);
    wait_for("no container", Duration::from_secs(30), || leftovers(&[&far, &near]).is_empty());
    let (stopped, freed) = (stopped.as_secs_f64(), freed.as_secs_f64());
    figure(
        CUT,
        &format!(
            "{how}: container gone after {stopped:.1} s, item given to another after {freed:.1} s; back {back:.1} s after the mend"
        ),
    );
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn cut_by_a_link_that_is_down() {
    cut_off("link down", |hosts| hosts.link("down"), |hosts| hosts.link("up"));
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn cut_by_packets_that_are_dropped() {
    cut_off("nftables drop", |hosts| hosts.drop_packets(1), |hosts| hosts.let_packets(1));
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn a_lost_reply_makes_a_duplicate() {
    let Some(mut farm) = Across::new(Shape { commits: 3, culprit: 1, build_s: 1, build_mib: 0 }) else {
        return;
    };
    let (far, pid) = farm.agent(1, "far");
    farm.submit();
    // Looking into an image ends without an upload: all that the agent has to say is Complete.
    farm.wait_for_start("far", "toolchain:", LONG);
    signal(pid, Signal::SIGSTOP);
    farm.hosts.drop_replies(0);
    signal(pid, Signal::SIGCONT);
    let lost = Instant::now();
    let (near, _) = farm.agent(0, "near");
    // Nothing can be built before the toolchain is known: the completion has been taken.
    farm.wait_for_start("near", "build:", Duration::from_secs(20));
    assert!(!farm.said("far").contains("reported"), "it knows nothing of it: {}", farm.said("far"));
    // TCP would bring the old answer late: the agent is to have given that call up.
    std::thread::sleep(Duration::from_secs(20).saturating_sub(lost.elapsed()));
    farm.hosts.let_packets(0);
    let mended = Instant::now();
    wait_for("an answer", Duration::from_secs(60), || farm.said("far").contains("answer=Duplicate"));
    let (cut, took) = ((mended - lost).as_secs_f64(), mended.elapsed().as_secs_f64());
    farm.wait_for_culprit();
    wait_for("no container", Duration::from_secs(30), || leftovers(&[&far, &near]).is_empty());
    figure(
        LOST,
        &format!(
            "replies dropped for {cut:.1} s; repeated, DUPLICATE {took:.1} s after they came through again"
        ),
    );
}

#[test]
#[ignore = "takes longer than a minute: scripts/faults runs it"]
fn a_slow_and_lossy_line_costs_time_alone() {
    let Some(mut farm) = Across::new(Shape { commits: 3, culprit: 1, build_s: 0, build_mib: 0 }) else {
        return;
    };
    let how = farm.hosts.slow();
    let begun = Instant::now();
    farm.agent(1, "far");
    farm.submit();
    farm.wait_for_culprit();
    let took = begun.elapsed().as_secs_f64();
    let state = farm.path("coordinator");
    farm.running.iter_mut().for_each(|it| drop((it.kill(), it.wait())));
    assert_eq!(failures(&state), 0, "an attempt failed");
    figure(SLOW, &format!("line of {how}: right answer in {took:.1} s, no attempt failed"));
}

/// Attempts that the journal of an ended coordinator says have failed.
fn failures(state: &Path) -> usize {
    farm::facts_of(&state.join("journal.sqlite"))
        .iter()
        .filter(|fact| matches!(fact, kulprit_common::farm::fact::Fact::AttemptFailed { .. }))
        .count()
}
