//! Tokens and members, as tables: each door opens for whom it should and for nobody else.

use kulprit_common::access::{
    AccessAnswer, AccessEvent, AccessFact, Ledger, Member, NotAdmitted, Peer, Principal, Refused, Role,
};
use kulprit_common::id::{AgentId, Digest};
use kulprit_common::time::Timestamp;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn name(text: &str) -> AgentId {
    text.parse().expect("a name")
}

fn member(text: &str) -> Member {
    text.parse().expect("a member")
}

/// A ledger, the time, and every fact so far.
#[derive(Default)]
struct World {
    ledger: Ledger,
    now: Timestamp,
    facts: Vec<AccessFact>,
}

impl World {
    fn tell(&mut self, event: AccessEvent) -> AccessAnswer {
        let (fact, answer) = self.ledger.handle(self.now, event);
        self.facts.extend(fact);
        let mut restored = Ledger::default();
        self.facts.iter().cloned().for_each(|fact| restored.take(fact));
        assert_eq!(restored.roll().1, self.ledger.roll().1, "the facts say it all");
        assert_eq!(restored.tokens(self.now), self.ledger.tokens(self.now));
        answer
    }

    fn create(&mut self, secret: &str, role: Role, only: Option<&str>) -> AccessAnswer {
        self.tell(AccessEvent::CreateToken {
            id: Digest::of(secret.as_bytes()),
            role,
            name: only.map(name),
            labels: vec!["zone=a".into()],
            ttl: HOUR,
            by: Principal::Local,
        })
    }

    fn join(&mut self, secret: &str, who: &str, key: &str) -> AccessAnswer {
        let token = Digest::of(secret.as_bytes());
        self.tell(AccessEvent::Join { token, name: name(who), key: Digest::of(key.as_bytes()) })
    }

    fn admit(&self, who: &str, key: &str, method: &str) -> Result<(), NotAdmitted> {
        let (member, key) = (member(who), Digest::of(key.as_bytes()));
        let peer = Peer::Certified { member, key, expires: self.now + HOUR };
        self.ledger.roll().1.admit(&peer, method, self.now)
    }
}

fn refused(answer: AccessAnswer) -> Refused {
    match answer {
        AccessAnswer::Refused(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}

const SYNC: &str = "kulprit.v1.Agents/Sync";

#[test]
fn a_token_lets_one_machine_in_once() {
    let mut world = World::default();
    world.create("s", Role::Agent, None);
    let joined = AccessAnswer::Joined(member("agent/a"));
    assert_eq!(world.join("s", "a", "key"), joined);
    assert_eq!(world.join("s", "a", "key"), joined, "its answer may have been lost");
    assert_eq!(world.facts.len(), 2, "and is no second joining");
    for (who, key) in [("a", "thief"), ("b", "thief"), ("b", "key")] {
        assert_eq!(refused(world.join("s", who, key)), Refused::TokenUsed(member("agent/a")));
    }
    assert_eq!(refused(world.join("guess", "c", "key")), Refused::UnknownToken);
    assert_eq!(world.ledger.labels(&name("a")), ["zone=a"]);
    let tokens = world.ledger.tokens(world.now);
    assert_eq!((tokens[0].state, tokens[0].used_by.clone()), ("used", Some(member("agent/a"))));
}

#[test]
fn a_token_expires_and_can_be_revoked() {
    let mut world = World::default();
    world.create("late", Role::Agent, None);
    world.create("gone", Role::Agent, None);
    let id = Digest::of(b"gone").to_string();
    let by = Principal::Member(member("operator/o"));
    let revoke = |token: &str| AccessEvent::RevokeToken { token: token.into(), by: by.clone() };
    assert_eq!(refused(world.tell(revoke(&id[..7]))), Refused::UnknownToken, "too short to be meant");
    world.tell(revoke(&id[..8]));
    assert_eq!(refused(world.join("gone", "a", "k")), Refused::TokenRevoked);
    world.now = world.now + HOUR;
    assert_eq!(refused(world.join("late", "a", "k")), Refused::TokenExpired(world.now));
    assert_eq!(world.ledger.tokens(world.now).iter().filter(|it| it.state == "expired").count(), 1);
    world.now = world.now + 24 * 8 * HOUR;
    assert_eq!(refused(world.join("late", "a", "k")), Refused::UnknownToken, "forgotten at last");
}

#[test]
fn a_name_is_not_taken_over_without_leave() {
    let mut world = World::default();
    for (secret, only) in [("1", None), ("2", None), ("3", Some("a")), ("4", Some("x")), ("5", None)] {
        world.create(secret, Role::Agent, only);
    }
    world.join("1", "a", "old");
    assert_eq!(refused(world.join("2", "a", "new")), Refused::NameTaken(member("agent/a")));
    assert_eq!(refused(world.join("4", "a", "new")), Refused::WrongName(name("x")));
    assert_eq!(world.join("2", "a", "old"), AccessAnswer::Joined(member("agent/a")), "the same machine");
    assert_eq!(world.admit("agent/a", "old", SYNC), Ok(()));
    assert_eq!(world.join("3", "a", "new"), AccessAnswer::Joined(member("agent/a")));
    assert_eq!(world.admit("agent/a", "old", SYNC), Err(NotAdmitted::Replaced(member("agent/a"))));
    assert_eq!(world.admit("agent/a", "new", SYNC), Ok(()));
}

#[test]
fn the_revoked_stay_out_until_they_are_let_in_by_name() {
    let mut world = World::default();
    let a = member("agent/a");
    for (secret, only) in [("1", None), ("2", None), ("3", Some("a"))] {
        world.create(secret, Role::Agent, only);
    }
    world.join("1", "a", "old");
    let by = Principal::Member(member("operator/o"));
    world.tell(AccessEvent::Revoke { member: a.clone(), by });
    assert_eq!(world.admit("agent/a", "old", SYNC), Err(NotAdmitted::Revoked(a.clone())));
    assert_eq!(refused(world.join("1", "a", "old")), Refused::TokenUsed(a.clone()));
    assert_eq!(refused(world.join("2", "a", "old")), Refused::NameTaken(a.clone()));
    world.join("3", "a", "new");
    assert_eq!(world.admit("agent/a", "new", SYNC), Ok(()));
    assert_eq!(world.admit("agent/a", "old", SYNC), Err(NotAdmitted::Replaced(a)));
}

#[test]
fn calls_are_held_against_the_table() {
    let world = World::default();
    let roll = world.ledger.roll().1;
    let (cancel, list) = ("kulprit.v1.Jobs/Cancel", "kulprit.v1.Jobs/List");
    assert!(matches!(world.admit("viewer/v", "k", cancel), Err(NotAdmitted::WrongRole { .. })));
    assert_eq!(world.admit("viewer/v", "k", list), Ok(()));
    assert_eq!(world.admit("operator/o", "k", cancel), Ok(()));
    assert!(matches!(world.admit("operator/o", "k", SYNC), Err(NotAdmitted::WrongRole { .. })));
    assert!(matches!(world.admit("agent/a", "k", list), Err(NotAdmitted::WrongRole { .. })));
    let anonymous = |method| roll.admit(&Peer::Anonymous, method, world.now);
    assert_eq!(anonymous("kulprit.v1.Enrol/Join"), Ok(()));
    for method in ["kulprit.v1.Enrol/Renew", SYNC, list, "artifacts/read"] {
        assert!(matches!(anonymous(method), Err(NotAdmitted::NoCertificate(_))), "{method}");
        assert_eq!(roll.admit(&Peer::Local, method, world.now), Ok(()));
    }
    assert!(matches!(
        roll.admit(&Peer::Local, "kulprit.v1.Jobs/X", world.now),
        Err(NotAdmitted::UnknownCall(_))
    ));
    let expires = world.now;
    let old = Peer::Certified { member: member("agent/a"), key: Digest::of(b"k"), expires };
    assert!(matches!(roll.admit(&old, SYNC, world.now), Err(NotAdmitted::Expired(_))));
}

#[test]
fn senseless_tokens_are_refused() {
    let mut world = World::default();
    let create = |ttl, label: &str| AccessEvent::CreateToken {
        id: Digest::of(b"x"),
        role: Role::Agent,
        name: None,
        labels: vec![label.into()],
        ttl,
        by: Principal::Local,
    };
    for (ttl, label) in [(0, "a"), (8 * 86_400, "a"), (60, ""), (60, "a b"), (60, "a=b=c"), (60, "=x")] {
        let event = create(Duration::from_secs(ttl), label);
        assert!(matches!(refused(world.tell(event)), Refused::BadRequest(_)), "{ttl} {label:?}");
    }
    assert!(matches!(world.tell(create(HOUR, "zone=eu-1")), AccessAnswer::TokenCreated { .. }));
}
