//! Mirrors of URLs whose servers are not what they were: away when a coordinator has lost its mirror, or
//! sending it to another server.

mod farm;

use farm::git_server::{GitServer, Instead};
use farm::hands::{AtWork, World, plain};
use farm::planted::{Planted, Shape};
use farm::{Farm, Process, text, wait_for};
use kulprit_coordinator::git::{Credentials, Mirrors};
use std::path::Path;
use std::time::Duration;

const SHAPE: Shape = Shape { commits: 40, culprit: 17, build_s: 0, build_mib: 0 };
const SOON: Duration = Duration::from_secs(60);
const AGAIN: &str = "the repository is asked for again";

/// A coordinator in the middle of a job, whose mirror is lost and whose server is away.
struct Lost {
    server: GitServer,
    farm: Farm,
    culprit: String,
    coordinator: Process,
    _hands: AtWork,
}

impl Lost {
    fn new(dir: &Path) -> Lost {
        let planted = Planted::new(dir, SHAPE);
        let (server, culprit) = (GitServer::start(dir), planted.culprit.to_string());
        let (job, logins) = (planted.job("job"), dir.join("logins.toml"));
        let written = std::fs::read_to_string(&job).expect("it was written");
        let path = planted.repository.display().to_string();
        std::fs::write(&job, written.replace(&path, &server.url("linux/.git"))).expect("written");
        server.logins(&logins);
        let world = World::new(planted);
        let farm = Farm::new(&dir.join("farm"));
        let start = || {
            farm.coordinator_with(|command| {
                command.arg("--git-credentials").arg(&logins);
            })
        };
        let mut coordinator = start();
        let hands = AtWork::start(|| ["h1", "h2"].map(|name| plain(&farm, name, &world, 150)).into());
        let output = farm.kulprit(&["bisect", "start", &job.to_string_lossy()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        wait_for("some work to be done", SOON, || world.with_seen(|seen| seen.answered.len() > 6));
        coordinator.kill9();
        std::fs::remove_dir_all(farm.state.join("coordinator/mirrors")).expect("it was there");
        server.instead(Instead::Away);
        let coordinator = start();
        Lost { server, farm, culprit, coordinator, _hands: hands }
    }

    /// How often the repository could not be had.
    fn asked(&self) -> usize {
        self.farm.said("coordinator").matches(AGAIN).count()
    }
}

/// As a standby with a state of its own takes over, or a coordinator is restored on a new machine.
#[test]
fn a_job_goes_on_where_the_mirror_is_lost_and_its_server_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut lost = Lost::new(dir.path());
    wait_for("it to ask again", SOON, || lost.asked() > 1);
    let jobs = lost.farm.json(&["bisect", "list"]);
    assert!(jobs[0]["progress"]["stage"] == "loading-history" && jobs[0]["ending"].is_null(), "{jobs}");
    lost.server.instead(Instead::Nothing);
    let show = || lost.farm.json(&["bisect", "show", "1"]);
    wait_for("the end of the job", SOON, || !show()["ending"].is_null());
    assert_eq!(show()["ending"]["culprit"], lost.culprit.as_str(), "{}", show());
    lost.coordinator.stop();
}

#[test]
fn for_a_cancelled_job_no_server_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut lost = Lost::new(dir.path());
    wait_for("it to ask again", SOON, || lost.asked() > 0);
    let output = lost.farm.kulprit(&["bisect", "cancel", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // It is asked after 1 s, 2 s and 4 s.
    std::thread::sleep(Duration::from_secs(2));
    let before = lost.asked();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(lost.asked(), before, "{}", lost.farm.said("coordinator"));
    lost.coordinator.stop();
}

#[test]
fn no_server_sees_the_password_of_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let planted = Planted::new(dir.path(), Shape { commits: 3, culprit: 1, ..SHAPE });
    let (trusted, other) = (GitServer::start(dir.path()), GitServer::start(dir.path()));
    let logins = dir.path().join("logins.toml");
    trusted.logins(&logins);
    let fetch = |name: &str| {
        let credentials = Credentials::open(logins.clone()).expect("usable");
        let mirrors = Mirrors::new(dir.path().join(name)).with_credentials(credentials);
        let opened = mirrors.open(&trusted.url("linux/.git"), &mut |_| {});
        opened.map(|mirror| mirror.head().expect("it has one").id).map_err(|error| error.to_string())
    };
    assert_eq!(fetch("plain"), Ok(*planted.commits.last().expect("some")));

    // By another name, and on another port of the same name.
    for host in ["localhost", "127.0.0.1"] {
        let elsewhere = format!("http://{host}:{}", other.port());
        for instead in [Instead::Redirect(elsewhere.clone()), Instead::RedirectMembers(elsewhere)] {
            trusted.instead(instead.clone());
            let why = fetch("redirected").expect_err("it is not the server that was meant");
            println!("{instead:?}: {why}");
            assert!(why.contains("redirect") || why.contains("sends the coordinator on"), "{why}");
            assert_eq!(other.logged_in(), 0, "{instead:?}");
        }
    }
    assert!(other.refused() > 0, "it asked for a password");
}
