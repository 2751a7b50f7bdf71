//! What people see, letter by letter.

use super::*;

fn ended(kind: &str, culprit: &str, message: &str) -> v1::JobView {
    v1::JobView {
        id: "j-1".into(),
        name: "uaf".into(),
        mode: v1::Mode::Cause as i32,
        repository: "/src/linux".into(),
        stage: "ended".into(),
        submitted_ms: 1_000,
        ended_ms: Some(84_000),
        end: Some(v1::JobEnd {
            kind: kind.into(),
            culprit: culprit.into(),
            message: message.into(),
            field: String::new(),
        }),
        ..Default::default()
    }
}

fn running() -> v1::JobView {
    v1::JobView {
        id: "j-22".into(),
        name: "a b".into(),
        mode: v1::Mode::Fix as i32,
        stage: "searching".into(),
        suspects_left: Some(8),
        submitted_ms: 1_000,
        detail: "waiting for a free slot".into(),
        revisions: vec![v1::RevisionView {
            revision: "1a".repeat(20),
            subject: "mm: x".into(),
            role: "search".into(),
            state: "booting".into(),
            runs_done: 2,
            runs_wanted: 10,
            runs_target: 0,
            reverts: None,
        }],
        ..Default::default()
    }
}

#[test]
fn a_job_that_was_refused_says_why_once() {
    let mut view = ended("invalid", "", "unknown revision \"v9\"");
    view.summary = "invalid: unknown revision \"v9\"\n".into();
    assert_eq!(job(&view, 0).matches("unknown revision").count(), 1, "{}", job(&view, 0));
}

#[test]
fn jobs_are_listed() {
    let jobs_seen = [running(), ended("culprit", &"ab".repeat(20), "x"), ended("from-the-future", "", "")];
    let expected = "\
JOB   NAME  MODE   STATE      SUSPECTS  TIME   RESULT
j-22  a b   fix    searching  8         1m0s   waiting for a free slot
j-1   uaf   cause  ended                1m23s  culprit abababababab
j-1   uaf   cause  ended                1m23s  from-the-future
";
    assert_eq!(jobs(&jobs_seen, 61_000), expected);
    assert_eq!(jobs(&[], 0), "there are no jobs\n");
}

#[test]
fn a_job_is_shown_in_full() {
    let expected = "\
job j-22 · a b
  repository
  mode        fix
  state       searching
              waiting for a free slot
  suspects    8
  work        0 builds, 0 runs
  time        1m0s

revisions:
  booting  1a1a1a1a1a1a  2 of 10 runs done     [search] mm: x
";
    assert_eq!(job(&running(), 61_000), expected);
}

#[test]
fn what_is_in_quarantine_is_shown_with_why_and_since_when() {
    let run = v1::GivenUp {
        item: "run:ab:1".into(),
        revision: Some("1a".repeat(20)),
        reason: "no\nluck (qemu)".into(),
        since_ms: Some(59_000),
        failures: 3,
        agents: vec!["a1".into(), "a2".into()],
    };
    let image = v1::GivenUp { item: "toolchain:x".into(), reason: "no image".into(), ..Default::default() };
    let view = v1::JobView { given_up: vec![run, image], ..running() };
    let expected = "
in quarantine:
  run:ab:1 1a1a1a1a1a1a failed 3 times, last 2s ago, on a1, a2: no luck (qemu)
  toolchain:x no image
  to have it tried again: kulprit bisect release j-22 REV|ITEM
";
    let shown = job(&view, 61_000);
    assert!(shown.ends_with(expected), "{shown}");

    let agent = |until| v1::AgentView {
        id: "a1".into(),
        state: "quarantined".into(),
        reason: "new disk".into(),
        quarantined_ms: Some(1_000),
        quarantined_until_ms: until,
        ..Default::default()
    };
    for (until, words) in [
        (None, "a1: in quarantine for 1m0s, until it is released: new disk\n"),
        (Some(71_000), "a1: in quarantine for 1m0s, for 10s more: new disk\n"),
    ] {
        let listed = agents(&[agent(until)], 61_000);
        assert!(listed.ends_with(words), "{listed}");
    }
}

#[test]
fn agents_are_listed_with_their_slots() {
    let work = v1::SlotWork {
        attempt: 0x1_0000_0003,
        item: "build:ab".into(),
        title: "job j 1a1a mm: x".into(),
        activity: "compiling".into(),
        since_ms: 50_000,
    };
    let slots = vec![
        v1::SlotView { cores: 4, memory_mib: 4096, work: Some(work) },
        v1::SlotView { cores: 4, memory_mib: 4096, work: None },
    ];
    let agent = v1::AgentView {
        id: "a1".into(),
        host: "h".into(),
        accelerator: "kvm".into(),
        state: "online".into(),
        last_sync_ms: Some(59_000),
        slots,
        problems: vec!["low on\ndisk".into()],
        ..Default::default()
    };
    let bare = v1::AgentView { id: "a2".into(), state: "lost".into(), ..Default::default() };
    let expected = "\
AGENT  HOST  STATE   GUESTS  HEARD    SLOT               ATTEMPT    FOR  WORK
a1     h     online  kvm     2s ago   4 cores, 4096 MiB  100000003  11s  compiling · 1a1a mm: x
                                      4 cores, 4096 MiB                  idle
a2           lost    none    not yet
a1: low on disk
";
    let past = v1::AgentView { id: "a3".into(), state: "revoked".into(), ..Default::default() };
    assert_eq!(agents(&[agent, bare, past], 61_000), expected);
    assert_eq!(agents(&[], 0), "no agent has been heard of\n");
}

#[test]
fn what_is_stored_and_what_went_of_it() {
    let view = |byte: u8, size, content: &str, jobs: &[&str]| v1::ArtifactView {
        artifact: Some(v1::Artifact { digest: vec![byte; 2], size }),
        modified_ms: 1000,
        content: content.into(),
        jobs: jobs.iter().map(ToString::to_string).collect(),
    };
    let kernel = view(0xab, 12 << 20, "kernel", &["7", "9"]);
    let unknown = view(1, 1023, "", &[]);
    let expected = "\
DIGEST  CONTENT  SIZE      AGE   NEEDED BY JOB
abab    kernel   12.0 MiB  1m0s  7, 9
0101    unknown  1023 B    1m0s
";
    assert_eq!(artifacts(&[kernel.clone(), unknown.clone()], 61_000), expected);
    assert_eq!(artifacts(&[], 0), "there are no artifacts\n");

    let sums = v1::ArtifactGone { stored: 2, stored_bytes: 5 << 30, needed: 1, gone: None };
    let expected = "0101 unknown 1023 B\n\
        1 of 2 artifacts would be removed, 1023 B of 5.0 GiB; open jobs need 1\n";
    assert_eq!(collected(&[unknown], &sums, true), expected);
    assert!(collected(&[], &sums, false).starts_with("0 of 2 artifacts removed, 0 B of"));

    let state = v1::ArtifactState::Missing as i32;
    let artifact = kernel.artifact.clone();
    let lost = v1::ArtifactVerdict { artifact, content: "kernel".into(), state, all: 3, jobs: kernel.jobs };
    let expected = "missing: abab (kernel, needed by job 7, 9)\n2 whole, 1 not\n";
    assert_eq!(verdicts(2, &[lost]), expected);
}
