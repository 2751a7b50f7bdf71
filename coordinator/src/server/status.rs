//! How the coordinator itself fares, for `kulprit doctor --farm`.

use super::Services;
use crate::door::Caller;
use kulprit_proto::v1;
use std::time::Duration;
use tonic::Status;

/// A store that takes longer is as good as none.
const STORE_LIMIT: Duration = Duration::from_secs(10);

impl Services {
    pub(super) async fn status(&self, caller: &Caller) -> Result<v1::FarmStatusResponse, Status> {
        let now = self.driver.ask(|_, now| now).await?;
        let valid = self.keys.as_ref().and_then(|keys| keys.validity());
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Ok(v1::FarmStatusResponse {
            version: kulprit_proto::VERSION.into(),
            now_ms: now.0,
            started_ms: now.0.saturating_sub(ms(self.started.elapsed())),
            journal_bytes: self.journal.size().await,
            disk_free_mib: self.room.free_mib().unwrap_or(0),
            disk_min_mib: self.room.free_mib_min,
            store: self.store_name.clone(),
            store_problem: self.store_problem().await,
            certificate_from_ms: valid.map(|it| ms(it.from)),
            certificate_until_ms: valid.map(|it| ms(it.until)),
            artifacts_url: match self.store.presigns() {
                true => String::new(),
                false => self.artifacts.url(caller),
            },
        })
    }

    async fn store_problem(&self) -> String {
        match tokio::time::timeout(STORE_LIMIT, self.store.try_out()).await {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => format!("failed to {error}"),
            Err(_) => format!("no answer within {} s", STORE_LIMIT.as_secs()),
        }
    }
}
