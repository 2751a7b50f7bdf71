//! Whether guests run here at all: after several that failed for no fault of a kernel's, a canary
//! has to say.

use crate::boot::BootError;
use kulprit_common::outcome::InfraClass;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;

/// Guests that fail one after the other before the canary is asked again.
const FAILURES_MAX: u32 = 3;

/// Counts guests that failed in a row.
#[derive(Default)]
pub struct Guests {
    failed: AtomicU32,
    trouble: Notify,
}

impl Guests {
    /// Takes in how a boot ended. A full disk is another's business.
    pub fn ended<T>(&self, ended: &Result<T, BootError>) {
        match ended {
            Ok(_) => self.failed.store(0, Ordering::Relaxed),
            Err(BootError::Infra(infra)) if infra.class != InfraClass::Disk => {
                if self.failed.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
                    self.trouble.notify_one();
                }
            }
            Err(BootError::Infra(_) | BootError::Cancelled) => {}
        }
    }

    /// Comes back as soon as there is trouble.
    pub async fn trouble(&self) {
        while !self.are_in_trouble() {
            self.trouble.notified().await;
        }
    }

    pub fn are_in_trouble(&self) -> bool {
        self.failed.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    /// A canary came up.
    pub fn recovered(&self) {
        self.failed.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kulprit_common::outcome::Infra;
    use std::time::Duration;

    fn failed(class: InfraClass) -> Result<(), BootError> {
        Err(BootError::Infra(Infra { class, reason: String::new() }))
    }

    #[tokio::test]
    async fn three_in_a_row_are_trouble_until_a_canary_comes_up() {
        let guests = Guests::default();
        let soon = async || tokio::time::timeout(Duration::from_millis(20), guests.trouble()).await.is_ok();
        for _ in 0..2 {
            guests.ended(&failed(InfraClass::Qemu));
        }
        guests.ended(&Ok(()));
        guests.ended(&failed(InfraClass::Qemu));
        for _ in 0..5 {
            guests.ended(&failed(InfraClass::Disk));
            guests.ended(&Err::<(), _>(BootError::Cancelled));
        }
        guests.ended(&failed(InfraClass::Timeout));
        assert!(!soon().await, "two in a row, and a disk");
        guests.ended(&failed(InfraClass::Qemu));
        assert!(soon().await && guests.are_in_trouble());
        guests.recovered();
        assert!(!soon().await);
    }
}
