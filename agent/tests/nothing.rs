//! What stands in for a reproducer where a job has none: this machine can run it.

use kulprit_common::job::NOTHING;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn nothing_is_an_executable_that_ends_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("nothing");
    std::fs::write(&path, NOTHING).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("made executable");
    assert!(Command::new(&path).status().expect("started").success());
}
