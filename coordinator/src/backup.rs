//! `kulprit-coordinator backup` and `restore`: what the coordinator must not lose, kept elsewhere.
//!
//! The journal is all of it but the artifacts and, where there is one, the CA's key.

use crate::driver::Clock;
use crate::journal::{self, Database, Fact, Place, Saved, StoredFact};
use anyhow::Context as _;
use kulprit_common::farm::fact::Fact as FarmFact;
use kulprit_common::time::{Timestamp, render_duration};
use kulprit_proto::journal as wire;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lives of the coordinator that may have come after the copy was made. The attempts that they granted
/// must not be granted again, for an agent may still hold one of them.
const LIVES_SKIPPED: u32 = 10_000;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Copy the journal to a file, also while the coordinator runs
    Backup {
        #[command(flatten)]
        kept: Kept,
        /// The copy; must not be there yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a copy the journal again, in a state directory or database that has none and where nothing
    /// runs
    Restore {
        #[command(flatten)]
        kept: Kept,
        /// The copy
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Where the journal is.
#[derive(Debug, clap::Args)]
pub struct Kept {
    /// Directory of the journal, as the coordinator has it
    #[arg(long, env = "KULPRIT_STATE", value_name = "DIR", required_unless_present = "journal")]
    state: Option<PathBuf>,
    /// The database of the journal, as the coordinator has it; a password comes from PGPASSFILE or
    /// PGPASSWORD
    #[arg(long, env = "KULPRIT_JOURNAL", value_name = "URL")]
    journal: Option<String>,
}

impl Kept {
    fn place(&self) -> anyhow::Result<Place> {
        match (&self.journal, &self.state) {
            (Some(url), _) => Ok(Place::Database(Database::parse(url)?)),
            (None, Some(state)) => Ok(Place::File(journal::file_in(state))),
            (None, None) => anyhow::bail!("find the journal: name --state or --journal"),
        }
    }
}

/// Does it, and says on standard output what the copy holds.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Backup { kept, file } => {
            let saved = journal::save(&kept.place()?, &file).await?;
            println!("{}: {}", file.display(), told(&saved));
        }
        Command::Restore { kept, file } => {
            let place = kept.place()?;
            if let Place::File(path) = &place
                && let Some(state) = path.parent()
            {
                std::fs::create_dir_all(state).with_context(|| format!("create {}", state.display()))?;
            }
            let saved = restore(&file, &place).await?;
            println!("{place}: {}", told(&saved));
        }
    }
    Ok(())
}

async fn restore(file: &Path, journal: &Place) -> anyhow::Result<Saved> {
    let seen = std::cell::RefCell::new((0u32, None));
    let each = |stored: StoredFact| match wire::decode(&stored.body) {
        Ok(FarmFact::EpochStarted { epoch }) => seen.borrow_mut().0 = epoch,
        Ok(_) => {}
        Err(error) => {
            seen.borrow_mut().1.get_or_insert(format!("fact {} ({}): {error}", stored.seq, stored.kind));
        }
    };
    let more = || {
        let (epoch, unreadable) = seen.take();
        unreadable.map_or_else(|| Ok(vec![skip_from(epoch)]), Err)
    };
    Ok(journal::restore(file, journal, each, more).await?)
}

/// Has the next life of the coordinator number its attempts beyond all that were granted.
fn skip_from(epoch: u32) -> Fact {
    let fact = FarmFact::EpochStarted { epoch: epoch.saturating_add(LIVES_SKIPPED) };
    let kind = wire::kind(&fact);
    Fact { at_ms: Clock::start().now().0, kind, body: wire::encode(fact) }
}

fn told(saved: &Saved) -> String {
    let age = Clock::start().now().since(Timestamp(saved.last_at_ms.max(0).cast_unsigned()));
    let age = render_duration(Duration::from_secs(age.as_secs()));
    format!("{} facts, the last one {age} old, in {} KiB", saved.facts, saved.bytes.div_ceil(1024))
}
