//! Whose hands the slots' directories are in: an attempt's that works in them, or of whoever makes
//! room on the disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

#[derive(Default)]
pub struct Slots(Mutex<HashMap<u32, Arc<tokio::sync::Mutex<()>>>>);

/// The right to a slot's directories.
pub type Hold = OwnedMutexGuard<()>;

impl Slots {
    /// Waits while another has it.
    pub async fn hold(&self, slot: u32) -> Hold {
        self.lock(slot).lock_owned().await
    }

    /// Nothing where another has it.
    pub fn try_hold(&self, slot: u32) -> Option<Hold> {
        self.lock(slot).try_lock_owned().ok()
    }

    fn lock(&self, slot: u32) -> Arc<tokio::sync::Mutex<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(slot).or_default().clone()
    }
}
