//! The addresses of a farm's coordinators, one of which serves: which, is found out by asking all
//! of them at once, and again whenever that one fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Channel, Error};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// What the coordinator that serves may take to say so.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How much longer the others may take once one has said that it does not.
const OTHERS_LIMIT: Duration = Duration::from_secs(1);

/// A way to one address.
pub(super) struct Route {
    current: RwLock<Channel>,
    dial: Box<dyn Fn() -> Channel + Send + Sync>,
}

impl Route {
    pub(super) fn new(dial: impl Fn() -> Channel + Send + Sync + 'static) -> Route {
        Route { current: RwLock::new(dial()), dial: Box::new(dial) }
    }

    fn channel(&self) -> Channel {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) struct Routes {
    all: Vec<Route>,
    chosen: AtomicUsize,
    /// The last that was heard of the chosen one was an answer.
    proven: AtomicBool,
    /// One caller searches, the others wait for what it finds.
    search: Mutex<()>,
}

/// What one address has to say.
enum Found {
    Serves,
    /// It is a coordinator's, which does not serve now.
    Declines,
    Silent,
}

impl Routes {
    /// `all` has one route at least.
    pub(super) fn new(all: Vec<Route>) -> Routes {
        Routes { all, chosen: AtomicUsize::new(0), proven: AtomicBool::new(false), search: Mutex::new(()) }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn redial(&self) {
        for route in &self.all {
            *route.current.write().unwrap_or_else(PoisonError::into_inner) = (route.dial)();
        }
    }

    /// The route to call by, with its place.
    pub(super) async fn choose(&self) -> (usize, Channel) {
        if self.all.len() > 1 && !self.proven.load(Ordering::Relaxed) {
            let _alone = self.search.lock().await;
            if !self.proven.load(Ordering::Relaxed) {
                self.search().await;
            }
        }
        let chosen = self.chosen.load(Ordering::Relaxed);
        (chosen, self.all[chosen].channel())
    }

    /// Takes in how a call by a route ended.
    pub(super) fn judge(&self, place: usize, answer: &Result<http::Response<Body>, Error>) {
        let served = answer.as_ref().is_ok_and(|response| {
            Status::from_header_map(response.headers()).is_none_or(|it| it.code() != Code::Unavailable)
        });
        if self.chosen.load(Ordering::Relaxed) == place {
            self.proven.store(served, Ordering::Relaxed);
        }
    }

    /// Chooses who says first that it serves; else one that says why it does not.
    async fn search(&self) {
        let mut asked = JoinSet::new();
        for (place, route) in self.all.iter().enumerate() {
            let channel = route.channel();
            asked.spawn(async move { (place, ask(channel).await) });
        }
        let mut declining = None;
        let mut until = Instant::now() + ASK_LIMIT;
        while let Ok(Some(Ok((place, found)))) = tokio::time::timeout_at(until, asked.join_next()).await {
            match found {
                Found::Serves => {
                    self.chosen.store(place, Ordering::Relaxed);
                    self.proven.store(true, Ordering::Relaxed);
                    return;
                }
                Found::Declines => {
                    declining = Some(place);
                    until = until.min(Instant::now() + OTHERS_LIMIT);
                }
                Found::Silent => {}
            }
        }
        if let Some(place) = declining {
            self.chosen.store(place, Ordering::Relaxed);
        }
    }
}

async fn ask(channel: Channel) -> Found {
    let request = HealthCheckRequest { service: String::new() };
    let mut client = HealthClient::new(channel);
    match client.check(request).await {
        Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => Found::Serves,
        Ok(_) => Found::Declines,
        Err(status) if std::error::Error::source(&status).is_some() => Found::Silent,
        Err(status) if status.code() == Code::Unavailable => Found::Declines,
        // Whoever refuses this caller serves others.
        Err(_) => Found::Serves,
    }
}
