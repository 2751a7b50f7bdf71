//! Room on the coordinator's disk: what there is of it is kept for the work that was accepted.

use std::path::PathBuf;
use tonic::Status;

/// The directory that must not run full, and the free MiB below which no job is taken.
#[derive(Clone, Debug)]
pub struct Room {
    pub state: PathBuf,
    pub free_mib_min: u64,
}

impl Room {
    /// Refuses where a new job might be the one that fills the disk.
    pub fn check(&self) -> Result<(), Status> {
        let least = self.free_mib_min;
        match self.free_mib() {
            Ok(free) if free < least => Err(Status::resource_exhausted(format!(
                "the coordinator is low on disk and takes no new job: {free} MiB free in {}, {least} MiB needed; \
                 make room there, or lower --disk-min-mib",
                self.state.display()
            ))),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, state = %self.state.display(), "the free disk cannot be seen");
                Ok(())
            }
        }
    }

    pub(super) fn free_mib(&self) -> nix::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.state)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()) >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_said_with_what_to_do() {
        let room = |free_mib_min| Room { state: std::env::temp_dir(), free_mib_min };
        assert!(room(0).check().is_ok());
        let refused = room(u64::MAX).check().expect_err("nobody has as much");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("MiB free in"), "{refused}");
        let lost = Room { state: "/nonexistent".into(), free_mib_min: 1 };
        assert!(lost.check().is_ok(), "what cannot be seen is not held against a job");
    }
}
