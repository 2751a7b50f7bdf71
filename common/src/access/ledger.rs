//! What the farm remembers of tokens and members. Events go in, facts and an answer come out.

use super::{Member, Principal, Role, Roll};
use crate::id::{AgentId, Digest};
use crate::time::{Timestamp, render_utc};
use std::collections::BTreeMap;
use std::time::Duration;

pub const TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// A token is for a machine that is being set up, not for a cupboard.
pub const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a token that can no longer be used is remembered, to say why it is refused.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Tokens remembered at once.
const TOKENS_MAX: usize = 10_000;
const LABELS_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessEvent {
    CreateToken {
        id: Digest,
        role: Role,
        /// Only for this name; it may then take over a name that has joined before.
        name: Option<AgentId>,
        labels: Vec<String>,
        ttl: Duration,
        by: Principal,
    },
    /// `token` is how the token's id begins.
    RevokeToken {
        token: String,
        by: Principal,
    },
    /// Somebody shows a token's secret, and a certificate request with this name and key.
    Join {
        token: Digest,
        name: AgentId,
        key: Digest,
    },
    Revoke {
        member: Member,
        by: Principal,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessFact {
    TokenCreated {
        id: Digest,
        role: Role,
        name: Option<AgentId>,
        labels: Vec<String>,
        at: Timestamp,
        expires: Timestamp,
        by: Principal,
    },
    TokenRevoked {
        id: Digest,
        at: Timestamp,
        by: Principal,
    },
    /// Uses the token up.
    Joined {
        token: Digest,
        member: Member,
        key: Digest,
        labels: Vec<String>,
        at: Timestamp,
    },
    Revoked {
        member: Member,
        at: Timestamp,
        by: Principal,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessAnswer {
    TokenCreated { expires: Timestamp },
    TokenRevoked { id: Digest },
    Joined(Member),
    Revoked,
    Refused(Refused),
}

/// Why an operator or a joiner is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the token is not known here; was it made by another farm?")]
    UnknownToken,
    #[error("the token expired at {}; ask for a new one. If it should still be valid, compare the clocks", render_utc(*.0))]
    TokenExpired(Timestamp),
    #[error(
        "the token was used already, by {0}; if that was not you, tell an operator: it may have been stolen"
    )]
    TokenUsed(Member),
    #[error("the token was revoked")]
    TokenRevoked,
    #[error("the token is for the name {0}")]
    WrongName(AgentId),
    #[error("{0} has joined before, with another key; to replace it use a token made with --name {name}", name = .0.name)]
    NameTaken(Member),
    #[error("{0}")]
    BadRequest(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TokenState {
    Open,
    Used(Member),
    Revoked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    role: Role,
    name: Option<AgentId>,
    labels: Vec<String>,
    created: Timestamp,
    expires: Timestamp,
    by: Principal,
    state: TokenState,
}

/// A token as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenView {
    pub id: Digest,
    pub role: Role,
    pub name: Option<AgentId>,
    pub labels: Vec<String>,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub by: Principal,
    /// open | used | revoked | expired
    pub state: &'static str,
    pub used_by: Option<Member>,
}

#[derive(Clone, Debug, Default)]
pub struct Ledger {
    tokens: BTreeMap<Digest, Token>,
    labels: BTreeMap<Member, Vec<String>>,
    roll: Roll,
    /// Rises whenever the roll changes.
    version: u64,
}

impl Ledger {
    pub fn handle(&mut self, now: Timestamp, event: AccessEvent) -> (Option<AccessFact>, AccessAnswer) {
        self.tokens.retain(|_, token| token.expires + KEPT > now);
        let decided = match event {
            AccessEvent::CreateToken { id, role, name, labels, ttl, by } => {
                self.create(now, (id, role, name, labels), ttl, by)
            }
            AccessEvent::RevokeToken { token, by } => self.revoke_token(now, &token, by),
            AccessEvent::Join { token, name, key } => self.join(now, token, name, key),
            AccessEvent::Revoke { member, by } => {
                Ok((Some(AccessFact::Revoked { member, at: now, by }), AccessAnswer::Revoked))
            }
        };
        match decided {
            Ok((fact, answer)) => {
                if let Some(fact) = &fact {
                    self.take(fact.clone());
                }
                (fact, answer)
            }
            Err(refused) => (None, AccessAnswer::Refused(refused)),
        }
    }

    /// Takes a fact in, just decided or from the journal.
    pub fn take(&mut self, fact: AccessFact) {
        match fact {
            AccessFact::TokenCreated { id, role, name, labels, at, expires, by } => {
                let state = TokenState::Open;
                self.tokens.insert(id, Token { role, name, labels, created: at, expires, by, state });
            }
            AccessFact::TokenRevoked { id, .. } => self.close(&id, TokenState::Revoked),
            AccessFact::Joined { token, member, key, labels, .. } => {
                self.close(&token, TokenState::Used(member.clone()));
                self.roll.denied.remove(&member);
                self.roll.keys.insert(member.clone(), key);
                self.labels.insert(member, labels);
                self.version += 1;
            }
            AccessFact::Revoked { member, .. } => {
                self.roll.denied.insert(member);
                self.version += 1;
            }
        }
    }

    pub fn roll(&self) -> (u64, &Roll) {
        (self.version, &self.roll)
    }

    pub fn is_denied(&self, member: &Member) -> bool {
        self.roll.denied.contains(member)
    }

    pub fn has_joined(&self, member: &Member) -> bool {
        self.roll.keys.contains_key(member)
    }

    /// The names of those who joined in this role, shut out meanwhile or not.
    pub fn joined(&self, role: Role) -> impl Iterator<Item = &AgentId> {
        self.roll.keys.keys().filter(move |member| member.role == role).map(|member| &member.name)
    }

    /// The labels an agent joined with.
    pub fn labels(&self, agent: &AgentId) -> &[String] {
        let member = Member { role: Role::Agent, name: agent.clone() };
        self.labels.get(&member).map_or(&[], Vec::as_slice)
    }

    /// Newest first.
    pub fn tokens(&self, now: Timestamp) -> Vec<TokenView> {
        let kept = self.tokens.iter().filter(|(_, token)| token.expires + KEPT > now);
        let mut views: Vec<TokenView> = kept.map(|(id, token)| token.view(*id, now)).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.created));
        views
    }

    fn create(
        &self,
        now: Timestamp,
        (id, role, name, labels): (Digest, Role, Option<AgentId>, Vec<String>),
        ttl: Duration,
        by: Principal,
    ) -> Result<(Option<AccessFact>, AccessAnswer), Refused> {
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(Refused::BadRequest(format!(
                "ttl: must be 1 s to {} days",
                TTL_MAX.as_secs() / 86_400
            )));
        }
        let is_label = |label: &String| label.parse::<AgentId>().is_ok() || is_pair(label);
        if labels.len() > LABELS_MAX || !labels.iter().all(is_label) {
            let message = format!(
                "labels: at most {LABELS_MAX}, each KEY or KEY=VALUE of letters, digits, '.', '_', '-'"
            );
            return Err(Refused::BadRequest(message));
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Refused::BadRequest("too many tokens are open; revoke some or wait".into()));
        }
        let expires = now + ttl;
        let fact = AccessFact::TokenCreated { id, role, name, labels, at: now, expires, by };
        Ok((Some(fact), AccessAnswer::TokenCreated { expires }))
    }

    fn revoke_token(
        &self,
        now: Timestamp,
        prefix: &str,
        by: Principal,
    ) -> Result<(Option<AccessFact>, AccessAnswer), Refused> {
        let matching = |id: &&Digest| prefix.len() >= 8 && id.to_string().starts_with(prefix);
        let found: Vec<&Digest> = self.tokens.keys().filter(matching).collect();
        let [id] = found[..] else { return Err(Refused::UnknownToken) };
        if let TokenState::Used(member) = &self.tokens[id].state {
            return Err(Refused::TokenUsed(member.clone()));
        }
        let fact = AccessFact::TokenRevoked { id: *id, at: now, by };
        Ok((Some(fact), AccessAnswer::TokenRevoked { id: *id }))
    }

    fn join(
        &self,
        now: Timestamp,
        id: Digest,
        name: AgentId,
        key: Digest,
    ) -> Result<(Option<AccessFact>, AccessAnswer), Refused> {
        let token = self.tokens.get(&id).ok_or(Refused::UnknownToken)?;
        let member = Member { role: token.role, name };
        match &token.state {
            TokenState::Open => {}
            TokenState::Revoked => return Err(Refused::TokenRevoked),
            // The answer may have been lost: whoever holds the same key is the same machine.
            TokenState::Used(user) if *user == member && self.is_current(&member, &key) => {
                return Ok((None, AccessAnswer::Joined(member)));
            }
            TokenState::Used(user) => return Err(Refused::TokenUsed(user.clone())),
        }
        if token.expires <= now {
            return Err(Refused::TokenExpired(token.expires));
        }
        match &token.name {
            Some(only) if *only != member.name => return Err(Refused::WrongName(only.clone())),
            Some(_) => {}
            None => self.is_free(&member, &key)?,
        }
        let labels = token.labels.clone();
        let fact = AccessFact::Joined { token: id, member: member.clone(), key, labels, at: now };
        Ok((Some(fact), AccessAnswer::Joined(member)))
    }

    /// A name that is taken, or was revoked, needs a token that says so.
    fn is_free(&self, member: &Member, key: &Digest) -> Result<(), Refused> {
        let other = self.roll.keys.get(member).is_some_and(|joined| joined != key);
        if other || self.roll.denied.contains(member) {
            return Err(Refused::NameTaken(member.clone()));
        }
        Ok(())
    }

    fn is_current(&self, member: &Member, key: &Digest) -> bool {
        self.roll.keys.get(member) == Some(key) && !self.roll.denied.contains(member)
    }

    fn close(&mut self, id: &Digest, state: TokenState) {
        if let Some(token) = self.tokens.get_mut(id) {
            token.state = state;
        }
    }
}

fn is_pair(label: &str) -> bool {
    label
        .split_once('=')
        .is_some_and(|(key, value)| key.parse::<AgentId>().is_ok() && value.parse::<AgentId>().is_ok())
}

impl Token {
    fn view(&self, id: Digest, now: Timestamp) -> TokenView {
        let (state, used_by) = match &self.state {
            TokenState::Used(member) => ("used", Some(member.clone())),
            TokenState::Revoked => ("revoked", None),
            TokenState::Open if self.expires <= now => ("expired", None),
            TokenState::Open => ("open", None),
        };
        TokenView {
            id,
            role: self.role,
            name: self.name.clone(),
            labels: self.labels.clone(),
            created: self.created,
            expires: self.expires,
            by: self.by.clone(),
            state,
            used_by,
        }
    }
}
