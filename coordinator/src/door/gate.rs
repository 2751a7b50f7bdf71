//! Holds each call against the farm's roll, and ends connections that are no longer welcome.

use super::Caller;
use crate::telemetry::FIGURES;
use kulprit_common::access::{Bucket, Member, NotAdmitted, Peer, Rate, Roll};
use kulprit_common::time::Timestamp;
use kulprit_observe::figures::Count as _;
use kulprit_proto::tls::SteadyClock;
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// An agent syncs ten times a second at most, and each of its slots completes and sends logs.
const MEMBER_RATE: Rate = Rate { per_second: 200, burst: 2000 };
/// Joining: enough for a rack of machines behind one address, hopeless for guessing.
const STRANGER_RATE: Rate = Rate { per_second: 20, burst: 200 };
/// Peers whose rate is remembered at once.
const BUCKETS_MAX: usize = 16 << 10;
/// A connection without a certificate is there to join, and to leave.
const STRANGER_STAYS: Duration = Duration::from_secs(60);
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    roll: watch::Receiver<Arc<Roll>>,
    buckets: Mutex<HashMap<Who, Bucket>>,
    connections: Mutex<Connections>,
}

/// Whose limits a call counts against.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Member(Member),
    Address(IpAddr),
}

impl Who {
    fn rate(&self) -> Rate {
        match self {
            Who::Member(_) => MEMBER_RATE,
            Who::Address(_) => STRANGER_RATE,
        }
    }
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, Open>,
}

struct Open {
    peer: Arc<Peer>,
    chain: Vec<CertificateDer<'static>>,
    until: Option<Instant>,
    end: CancellationToken,
}

/// Why a call does not pass.
pub enum Stopped {
    TooFast,
    Refused(NotAdmitted),
}

/// A connection in the gate's books; dropped with it.
pub struct Entered {
    gate: Gate,
    id: u64,
    pub end: CancellationToken,
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.gate.shared.connections).open.remove(&self.id);
    }
}

impl Gate {
    pub fn new(roll: watch::Receiver<Arc<Roll>>) -> Self {
        let shared = Shared { roll, buckets: Mutex::default(), connections: Mutex::default() };
        Gate { shared: Arc::new(shared) }
    }

    /// Whether this call may be made.
    pub fn check(&self, caller: &Caller, method: &str) -> Result<(), Stopped> {
        let now = now();
        if !self.is_slow_enough(caller, now) {
            FIGURES.refused.one(&["too-fast"]);
            tracing::debug!(ip = %caller.ip, method, "too many requests");
            return Err(Stopped::TooFast);
        }
        let admitted = self.shared.roll.borrow().admit(&caller.peer, method, now);
        admitted.map_err(|why| {
            FIGURES.refused.one(&["not-admitted"]);
            tracing::warn!(ip = %caller.ip, method, %why, "refused");
            Stopped::Refused(why)
        })
    }

    /// `None` for whoever is on this machine, who can do worse than to call often.
    pub(super) fn who(caller: &Caller) -> Option<Who> {
        match &*caller.peer {
            Peer::Local => None,
            Peer::Anonymous => Some(Who::Address(site(caller.ip))),
            Peer::Certified { member, .. } => Some(Who::Member(member.clone())),
        }
    }

    fn is_slow_enough(&self, caller: &Caller, now: Timestamp) -> bool {
        let Some(who) = Self::who(caller) else { return true };
        let rate = who.rate();
        let mut buckets = lock(&self.shared.buckets);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&who) {
            buckets.retain(|who, bucket| !bucket.is_full(who.rate(), now));
            if buckets.len() >= BUCKETS_MAX {
                return false;
            }
        }
        buckets.entry(who).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }

    /// Enters a new connection in the books.
    pub fn enter(&self, peer: Arc<Peer>, chain: Vec<CertificateDer<'static>>) -> Entered {
        let until = match &*peer {
            Peer::Local => None,
            Peer::Anonymous => Some(Instant::now() + STRANGER_STAYS),
            Peer::Certified { expires, .. } => Some(Instant::now() + expires.since(now())),
        };
        let end = CancellationToken::new();
        let mut connections = lock(&self.shared.connections);
        connections.next += 1;
        let id = connections.next;
        connections.open.insert(id, Open { peer, chain, until, end: end.clone() });
        Entered { gate: self.clone(), id, end }
    }

    /// Ends the connections whose certificates are of a CA that is trusted no more.
    pub fn keep_those(&self, trusted: impl Fn(&[CertificateDer<'static>]) -> bool) {
        for open in lock(&self.shared.connections).open.values() {
            if !open.chain.is_empty() && !trusted(&open.chain) {
                open.end.cancel();
            }
        }
    }

    /// Ends the connections of whoever is shut out, at once, and those that have lasted too long.
    pub async fn sweep(self) {
        let mut roll = self.shared.roll.clone();
        loop {
            tokio::select! {
                changed = roll.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            let roll = roll.borrow_and_update().clone();
            let (at, now) = (Instant::now(), now());
            for open in lock(&self.shared.connections).open.values() {
                let shut_out = roll.is_in(&open.peer, now);
                if shut_out.is_err() || open.until.is_some_and(|until| until <= at) {
                    open.end.cancel();
                }
            }
        }
    }
}

/// Time for certificates and rates.
fn now() -> Timestamp {
    Timestamp(SteadyClock::shared().now_ms())
}

/// What counts as one place: hosts have whole networks of IPv6 addresses.
pub fn site(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
        },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_addresses_is_one_place() {
        let at = |text: &str| site(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8:0:2::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[tokio::test]
    async fn strangers_are_slowed_down_and_members_apart_from_them() {
        let (_say, roll) = watch::channel(Arc::new(Roll::default()));
        let gate = Gate::new(roll);
        let stranger =
            Caller { peer: Arc::new(Peer::Anonymous), ip: "10.0.0.1".parse().unwrap(), called: None };
        let passed = (0..1000).filter(|_| gate.check(&stranger, "kulprit.v1.Enrol/Join").is_ok()).count();
        assert!((200..300).contains(&passed), "{passed}");
        let peer = Peer::Certified {
            member: "agent/a".parse().unwrap(),
            key: kulprit_common::id::Digest::of(b"k"),
            expires: Timestamp(u64::MAX),
        };
        let agent = Caller { peer: Arc::new(peer), ..stranger };
        assert!(gate.check(&agent, "kulprit.v1.Agents/Sync").is_ok());
    }
}
