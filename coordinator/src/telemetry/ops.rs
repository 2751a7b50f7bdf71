//! What the ops listener is told when it asks, and what gRPC's health service says.

use super::FIGURES;
use crate::driver::Handle;
use crate::journal::Place;
use kulprit_observe::figures::{Say as _, number};
use kulprit_observe::ops::Observed;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A driver that takes longer is not at work.
const DRIVER_LIMIT: Duration = Duration::from_secs(5);

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The journal is read, ports are opened.
    Starting,
    /// Another coordinator serves.
    StandingBy,
    Serving,
    Stopping,
}

pub struct Ops {
    state: PathBuf,
    journal: Place,
    phase: watch::Sender<Phase>,
    /// Why it stands by, while it does.
    standby: Mutex<String>,
    driver: OnceLock<Handle>,
}

impl Ops {
    pub fn new(state: PathBuf, journal: Place) -> Self {
        let phase = watch::channel(Phase::Starting).0;
        Ops { state, journal, phase, standby: Mutex::default(), driver: OnceLock::new() }
    }

    /// Another coordinator serves, or none does.
    pub fn stands_by(&self, why: String) {
        *self.standby.lock().unwrap_or_else(PoisonError::into_inner) = why;
        self.phase.send_replace(Phase::StandingBy);
    }

    /// It is this one's turn.
    pub fn starts(&self) {
        self.phase.send_replace(Phase::Starting);
    }

    /// All ports are served from now on.
    pub fn serves(&self, driver: Handle) {
        // It is said once, by the one who puts the parts together.
        let _ = self.driver.set(driver);
        self.phase.send_replace(Phase::Serving);
    }

    pub fn stops(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    async fn look_at_the_disk(&self) {
        FIGURES.journal_bytes.say(&[], number(self.journal.size().await));
        if let Ok(stat) = nix::sys::statvfs::statvfs(&self.state) {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            FIGURES.disk_free.say(&["state"], number(free));
        }
    }
}

impl Observed for Ops {
    async fn readiness(&self) -> Result<(), String> {
        let phase = *self.phase.borrow();
        let driver = match (phase, self.driver.get()) {
            (Phase::Stopping, _) => return Err("it is stopping".into()),
            (Phase::StandingBy, _) => {
                return Err(self.standby.lock().unwrap_or_else(PoisonError::into_inner).clone());
            }
            (Phase::Serving, Some(driver)) => driver,
            (Phase::Starting, _) | (Phase::Serving, None) => {
                return Err("the journal is being read, or ports are being opened".into());
            }
        };
        match tokio::time::timeout(DRIVER_LIMIT, driver.ask(|_, _| ())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(stopped)) => Err(stopped.to_string()),
            Err(_) => Err(format!("the driver has not answered for {} s", DRIVER_LIMIT.as_secs())),
        }
    }

    async fn figures(&self) -> String {
        self.look_at_the_disk().await;
        let leads = *self.phase.borrow() == Phase::Serving;
        FIGURES.leading.say(&[], if leads { 1.0 } else { 0.0 });
        if let Some(driver) = self.driver.get() {
            let (waiting, capacity) = driver.queue();
            FIGURES.queue.say(&[], number(waiting as u64));
            FIGURES.queue_max.say(&[], number(capacity as u64));
            let counted = driver.ask(|farm, now| (farm.census(), now));
            let counted = tokio::time::timeout(DRIVER_LIMIT, counted).await;
            FIGURES.answering.say(&[], if matches!(counted, Ok(Ok(_))) { 1.0 } else { 0.0 });
            if let Ok(Ok((census, now))) = counted {
                FIGURES.take(&census, now);
            }
        }
        FIGURES.book.text()
    }
}
