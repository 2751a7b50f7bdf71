//! Source through the coordinator: real farms whose agents cannot read the job's repository.

mod farm;

use farm::fake_store::FakeStore;
use farm::git_server::{ENCODED, GitServer, PASSWORD};
use farm::planted::Shape;
use farm::secure::block_on;
use farm::small::Small;
use farm::{Farm, LONG, Process, command, leftovers, wait_for};
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tonic::Code;

const SHAPE: Shape = Shape { commits: 5, culprit: 2, build_s: 1, build_mib: 0 };
const BALLAST: usize = 2 << 20;
const CAME: &str = "the source came from the coordinator";

/// What the coordinator says of each pack that it made: its kind, digest and size.
fn packed(farm: &Farm) -> Vec<(String, String, u64)> {
    let log = farm.said("coordinator");
    let lines = log.lines().filter(|line| line.contains("packed source for agents"));
    lines
        .map(|line| {
            let field = |name: &str| {
                let rest =
                    line.split(&format!(" {name}=")).nth(1).unwrap_or_else(|| panic!("{name}: {line}"));
                rest.split_whitespace().next().expect("a value").trim_matches('"').to_owned()
            };
            (field("kind"), field("digest"), field("bytes").parse().expect("a number"))
        })
        .collect()
}

fn of_kind(packs: &[(String, String, u64)], kind: &str) -> Vec<u64> {
    packs.iter().filter(|(it, ..)| it == kind).map(|(.., bytes)| *bytes).collect()
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let below = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        Ok(kind) if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    };
    entries.flatten().flat_map(below).collect()
}

fn holding(dir: &Path, words: &[&str]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        words.iter().any(|word| bytes.windows(word.len()).any(|it| it == word.as_bytes()))
    };
    files(dir).into_iter().filter(holds).collect()
}

/// An agent for which nothing is where the repository is.
fn agent_elsewhere(small: &Small, farm: &Farm, name: &str) -> Process {
    let agent = command("kulprit-agent").get_program().to_owned();
    let mut unshared = Command::new("unshare");
    unshared.args(["--mount", "--propagation", "slave", "sh", "-c"]);
    unshared.arg("mount -t tmpfs tmpfs \"$0\" && exec \"$@\"").arg(&small.planted.repository).arg(agent);
    small.agent(&mut unshared, name, &farm.url());
    farm.spawn(name, unshared)
}

/// What an agent is told that asks for the source of an attempt it does not hold.
fn refusal(farm: &Farm, agent: &str, attempt: u64) -> Code {
    let request = v1::SourceRequest { agent: agent.into(), attempt, ..Default::default() };
    block_on(async {
        let link = Link::plain(&farm.url()).expect("a link");
        AgentsClient::new(link).source(request).await.expect_err("it is not its own").code()
    })
}

#[test]
fn a_private_repository_is_read_by_the_coordinator_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(small) = Small::with_ballast(dir.path(), SHAPE, 0, BALLAST) else { return };
    let small = Small { slots: 1, ..small };
    let server = GitServer::start(dir.path());
    let farm = Farm::new(&dir.path().join("farm"));
    let (logins, store) = (dir.path().join("logins.toml"), FakeStore::start());
    server.logins(&logins);
    // In a bucket, so that the coordinator has to sign for the packs too.
    let mut coordinator = farm.coordinator_with(|command| {
        command.arg("--git-credentials").arg(&logins).args(["--artifacts", FakeStore::URL]);
        store.tell(command);
    });
    let names = ["source-private-a", "source-private-b"];
    let mut agents: Vec<Process> = names.iter().map(|name| small.start(&farm, name, |_| {})).collect();
    wait_for("both agents", LONG, || farm.json(&["agent", "list"]).as_array().map_or(0, Vec::len) == 2);
    small.submit_as(&farm, "job", &server.url("linux/.git"));
    small.wait_for_culprit(&farm, "1");
    agents.iter_mut().for_each(Process::stop);
    coordinator.stop();

    assert!(server.refused() >= 2, "each agent tries the repository itself first");
    for name in names {
        assert!(farm.said(name).contains(CAME), "{name}: {}", farm.said(name));
    }
    let packs = packed(&farm);
    let (bases, thin) = (of_kind(&packs, "base"), of_kind(&packs, "thin"));
    assert_eq!(bases.len(), 1, "two agents share one: {packs:?}");
    assert!(bases[0] > BALLAST as u64, "{packs:?}");
    assert!(!thin.is_empty() && thin.iter().all(|bytes| *bytes < bases[0] / 100), "{packs:?}");
    // Nobody but the file that the operator wrote knows the password, in whatever spelling.
    assert_eq!(holding(dir.path(), &[PASSWORD, ENCODED]), [logins]);
    assert_eq!(leftovers(&names), Vec::<String>::new());
}

#[test]
fn a_path_of_the_coordinators_machine_is_enough() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(small) = Small::with_ballast(dir.path(), SHAPE, 0, BALLAST) else { return };
    let small = Small { slots: 1, ..small };
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator();
    let mut first = agent_elsewhere(&small, &farm, "source-path-a");
    small.submit(&farm, "first");
    farm.wait_for_activity("source-path-a", "", LONG);
    for attempt in [0, 1, (1 << 32) + 1, (1 << 32) + 2] {
        assert_eq!(refusal(&farm, "source-path-z", attempt), Code::PermissionDenied, "{attempt}");
    }
    small.wait_for_culprit(&farm, "1");
    first.stop();
    assert!(farm.said("source-path-a").contains("is not a git repository"), "it tried the path");
    let base = packed(&farm).into_iter().find(|(kind, ..)| kind == "base").expect("it was made").1;

    // The next agent finds the pack damaged, and has it made again.
    let stored = farm.state.join("coordinator/artifacts/sha256").join(&base[..2]).join(&base);
    let mut bytes = std::fs::read(&stored).expect("it is stored");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(&stored, bytes).expect("written");
    let mut second = agent_elsewhere(&small, &farm, "source-path-b");
    small.submit(&farm, "second");
    small.wait_for_culprit(&farm, "2");
    second.stop();
    coordinator.stop();
    let (agent, said) = (farm.said("source-path-b"), farm.said("coordinator"));
    assert!(agent.contains("asked to pack anew") && agent.contains(CAME), "{agent}");
    assert!(said.contains("was damaged in the artifact store"), "{said}");
    assert_eq!(of_kind(&packed(&farm), "base").len(), 2);
    let torn =
        |path: &PathBuf| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("packing-"));
    assert!(!files(&farm.state).iter().any(torn), "nothing in the making is left");
}

#[test]
fn an_agent_killed_while_it_fetches_starts_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(small) = Small::with_ballast(dir.path(), SHAPE, 0, 16 << 20) else { return };
    let small = Small { slots: 1, ..small };
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator();
    let start = || {
        small.start(&farm, "source-killed", |command| {
            command.args(["--source", "coordinator"]);
        })
    };
    let mut agent = start();
    small.submit(&farm, "job");
    let artifacts = dir.path().join("agents/source-killed");
    let is_torn = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let large = path.metadata().is_ok_and(|meta| meta.len() > 1 << 20);
        large && (name.starts_with("staged-") || name.starts_with("pack_git2_"))
    };
    let begun = std::time::Instant::now();
    while !files(&artifacts).iter().any(is_torn) {
        assert!(begun.elapsed() < LONG, "{}", farm.said("source-killed"));
        std::thread::sleep(Duration::from_millis(5));
    }
    agent.kill9();
    assert!(files(&artifacts).iter().any(is_torn), "it was killed in the middle");
    let mut agent = start();
    small.wait_for_culprit(&farm, "1");
    wait_for("what was torn to be gone", LONG, || !files(&artifacts).iter().any(is_torn));
    agent.stop();
    coordinator.stop();
    assert_eq!(of_kind(&packed(&farm), "base").len(), 1, "what was packed is used again");
}
