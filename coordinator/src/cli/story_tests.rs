//! The words as tables.

use super::*;

fn revision(id: &str, state: &str, done: u32, target: u32) -> v1::RevisionView {
    v1::RevisionView {
        revision: id.repeat(20),
        subject: "mm: do a thing".into(),
        role: "search".into(),
        state: state.into(),
        runs_done: done,
        runs_wanted: 10,
        runs_target: target,
        reverts: None,
    }
}

fn work(attempt: u64, item: &str, title: &str, activity: &str) -> v1::SlotView {
    let work = v1::SlotWork {
        attempt,
        item: item.into(),
        title: title.into(),
        activity: activity.into(),
        since_ms: 1_000,
    };
    v1::SlotView { cores: 1, memory_mib: 1024, work: Some(work) }
}

fn agent(id: &str, state: &str, slots: Vec<v1::SlotView>) -> v1::AgentView {
    v1::AgentView {
        id: id.into(),
        state: state.into(),
        accelerator: "tcg".into(),
        slots,
        ..Default::default()
    }
}

fn idle() -> v1::SlotView {
    v1::SlotView { cores: 1, memory_mib: 1024, work: None }
}

#[test]
fn verdicts_read_well() {
    for (view, expected) in [
        (revision("1a", "bad", 3, 3), "bad   1a1a1a1a1a1a  3 of 3 runs crashed   [search] mm: do a thing"),
        (revision("2b", "good", 10, 0), "good  2b2b2b2b2b2b  0 of 10 runs crashed  [search] mm: do a thing"),
        (revision("3c", "skip", 0, 0), "skip  3c3c3c3c3c3c  no runs               [search] mm: do a thing"),
        (revision("4d", "bad", 1, 1), "bad   4d4d4d4d4d4d  1 of 1 run crashed    [search] mm: do a thing"),
    ] {
        assert_eq!(verdict_line(&view), expected);
    }
    let reverts = Some("6a".repeat(20));
    let view = v1::RevisionView { role: "revert".into(), reverts, ..revision("5e", "good", 10, 0) };
    assert_eq!(verdict_line(&view), "good  6a6a6a6a6a6a  0 of 10 runs crashed  [revert] mm: do a thing");
}

#[test]
fn the_job_is_one_line() {
    let mut job = v1::JobView {
        stage: "searching".into(),
        suspects_left: Some(17),
        revisions: vec![
            revision("1a", "bad", 3, 3),
            revision("2b", "good", 9, 0),
            revision("3c", "booting", 1, 0),
        ],
        ..Default::default()
    };
    assert_eq!(
        job_line(&job, Duration::from_millis(83_900)),
        "searching · 17 suspects left · 1 bad, 1 good · 1m23s"
    );
    job.suspects_left = Some(1);
    job.stage = "some-new-stage".into();
    job.detail = "waiting for\na slot\x1b[31m".into();
    job.revisions.clear();
    assert_eq!(
        job_line(&job, Duration::ZERO),
        "some-new-stage · 1 suspect left · 0s · waiting for a slot[31m"
    );
}

#[test]
fn slots_say_who_does_what() {
    let agents = [
        agent(
            "agent-1",
            "online",
            vec![work(7, "build:ab", "job 0192 1a1a1a1a1a1a mm: x", "compiling"), idle()],
        ),
        agent("b", "draining", vec![idle()]),
        agent("c", "lost", vec![idle()]),
    ];
    let expected = [
        "agent-1  compiling · 1a1a1a1a1a1a mm: x · 1m1s",
        "agent-1  idle",
        "b        draining",
        "c        lost",
    ];
    assert_eq!(slot_lines(&agents, 62_000), expected);
    // A clock that is behind gives no huge number.
    assert!(slot_lines(&agents, 0)[0].ends_with("0s"));
}

#[test]
fn a_pulse_is_one_line() {
    let mut job = v1::JobView { stage: "resolving".into(), ..Default::default() };
    assert_eq!(pulse(&job, &[], 0), "fetching the repository");
    let mut agents = vec![
        agent("agent-1", "online", vec![work(7, "build:ab", "job 1 1a1a mm: x", "building 1a1a")]),
        agent(
            "agent-2",
            "online",
            vec![work(8, "build:cd", "job 1 2b2b mm: y", "waiting for another agent")],
        ),
        agent("agent-3", "online", vec![idle(), idle()]),
        agent("agent-4", "lost", vec![idle()]),
    ];
    assert_eq!(
        pulse(&job, &agents, 181_000),
        "agent-1 building 1a1a for 3m0s; agent-2 waiting for another agent for 3m0s; agent-3 idle"
    );
    agents = (0..20).map(|i| agent(&format!("a{i}"), "draining", vec![idle()])).collect();
    job.detail = "waiting for\nan agent".into();
    let line = pulse(&job, &agents, 0);
    assert!(
        line.starts_with("a0 draining; ") && line.ends_with("; and 8 more; waiting for an agent"),
        "{line}"
    );
}

#[test]
fn work_that_stands_still_is_told_and_when_it_goes_on() {
    let mut story = Story::default();
    let mut told = |activity: &str| {
        let agents = vec![agent("a", "online", vec![work(1, "build:ab", "job j 1a mm: x", activity)])];
        story.tell(&v1::WatchUpdate { agents, job: Some(v1::JobView::default()), ..Default::default() })
    };
    assert_eq!(told("building 1a").len(), 2);
    let wait = "waiting for another agent to build the first kernel";
    assert_eq!(told(wait), [Event::Work(format!("a: {wait}"))]);
    assert_eq!(told(wait), []);
    assert_eq!(told("building 1a"), [Event::Work("a: building 1a".into())]);
    assert_eq!(told("uploading 1a"), []);
}

#[test]
fn a_large_farm_shows_its_busy_slots() {
    let mut agents: Vec<_> = (0..20).map(|i| agent(&format!("a{i:02}"), "online", vec![idle()])).collect();
    agents[19].slots[0] = work(1, "run:ab:0", "", "");
    let lines = slot_lines(&agents, 1_000);
    assert_eq!(lines.len(), SLOT_LINES_MAX + 1);
    assert_eq!(lines[0], "a19  run:ab:0 · 0s");
    assert_eq!(lines[SLOT_LINES_MAX], "and 8 more slots");
}

#[test]
fn nothing_is_told_twice() {
    let mut story = Story::default();
    let job = v1::JobView {
        stage: "searching".into(),
        suspects_left: Some(64),
        revisions: vec![revision("1a", "bad", 3, 3), revision("2b", "building", 0, 0)],
        ..Default::default()
    };
    let agents = vec![agent("a", "online", vec![work(1, "run:ab:0", "job j 1a run 0", "")])];
    let mut update = v1::WatchUpdate { job: Some(job), log: String::new(), agents };
    let told = story.tell(&update);
    assert_eq!(
        told,
        [
            Event::Agent("a joined: 1 slot, guests under tcg".into()),
            Event::Work("a: booting 1a".into()),
            Event::Verdict { state: "bad".into(), text: verdict_line(&revision("1a", "bad", 3, 3)) },
            Event::Stage("searching, 64 suspects left".into()),
        ]
    );
    assert_eq!(story.tell(&update), []);

    // The same kernel's next run is no event; a lost agent and a reason to wait are.
    update.agents[0].slots[0] = work(2, "run:ab:1", "job j 1a run 1", "");
    assert_eq!(story.tell(&update), []);
    update.agents[0].state = "lost".into();
    update.job.as_mut().unwrap().detail = "waiting for an agent".into();
    assert_eq!(
        story.tell(&update),
        [Event::Agent("a is lost".into()), Event::Waiting("waiting for an agent".into())]
    );
    assert_eq!(story.tell(&v1::WatchUpdate::default()), []);
}
