//! What operators call to let others in and to shut them out.

use super::Services;
use crate::door::Caller;
use crate::door::authority::fill_random;
use kulprit_common::access::{
    AccessAnswer, AccessEvent, Member, Principal, Refused, TTL_DEFAULT, TokenText, TokenView,
};
use kulprit_common::farm::action::Answer;
use kulprit_common::farm::event::Event;
use kulprit_proto::v1;
use kulprit_proto::v1::access_server::Access;
use std::time::Duration;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Access for Services {
    async fn token_create(
        &self,
        request: Request<v1::TokenCreateRequest>,
    ) -> Result<Response<v1::TokenCreateResponse>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let ca = self.authority()?.fingerprint;
        let request = request.into_inner();
        let mut token = TokenText { ca, secret: [0; 16] };
        fill_random(&mut token.secret);
        let ttl = match request.ttl_ms {
            0 => TTL_DEFAULT,
            millis => Duration::from_millis(millis),
        };
        let name = request.name.map(|name| name.parse()).transpose();
        let event = AccessEvent::CreateToken {
            id: token.id(),
            role: request.role.parse().map_err(|error| invalid("role", &error))?,
            name: name.map_err(|error| invalid("name", &error))?,
            labels: request.labels,
            ttl,
            by,
        };
        match self.decide(event).await? {
            AccessAnswer::TokenCreated { expires } => Ok(Response::new(v1::TokenCreateResponse {
                token: token.to_string(),
                id: token.id().short(),
                expires_ms: expires.0,
            })),
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }

    async fn token_list(
        &self,
        _: Request<v1::TokenListRequest>,
    ) -> Result<Response<v1::TokenListResponse>, Status> {
        let tokens = self.driver.ask(|farm, now| farm.ledger().tokens(now)).await?;
        Ok(Response::new(v1::TokenListResponse { tokens: tokens.into_iter().map(view).collect() }))
    }

    async fn token_revoke(
        &self,
        request: Request<v1::TokenRevokeRequest>,
    ) -> Result<Response<v1::TokenRevokeResponse>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let event = AccessEvent::RevokeToken { token: request.into_inner().id, by };
        match self.decide(event).await? {
            AccessAnswer::TokenRevoked { id } => {
                Ok(Response::new(v1::TokenRevokeResponse { id: id.short() }))
            }
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        let by = Caller::of(&request)?.principal()?;
        let request = request.into_inner();
        let member = Member {
            role: request.role.parse().map_err(|error| invalid("role", &error))?,
            name: request.name.parse().map_err(|error| invalid("name", &error))?,
        };
        if by == Principal::Member(member.clone()) {
            return Err(Status::failed_precondition(
                "name: nobody revokes themselves; let another operator do it",
            ));
        }
        tracing::warn!(%member, %by, "revoked");
        match self.decide(AccessEvent::Revoke { member, by }).await? {
            AccessAnswer::Revoked => Ok(Response::new(v1::RevokeResponse {})),
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }
}

impl Services {
    async fn decide(&self, event: AccessEvent) -> Result<AccessAnswer, Status> {
        match self.driver.tell(Event::Access(Box::new(event))).await? {
            Some(Answer::Access(AccessAnswer::Refused(why))) => Err(match why {
                Refused::UnknownToken => {
                    Status::not_found("there is no such token; `kulprit token list` shows those there are")
                }
                Refused::BadRequest(why) => Status::invalid_argument(why),
                other => Status::failed_precondition(other.to_string()),
            }),
            Some(Answer::Access(answer)) => Ok(answer),
            _ => Err(Status::internal("the farm gave no answer")),
        }
    }
}

fn invalid(field: &str, error: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {error}"))
}

fn view(token: TokenView) -> v1::TokenView {
    v1::TokenView {
        id: token.id.short(),
        role: token.role.to_string(),
        name: token.name.map(|name| name.to_string()),
        labels: token.labels,
        created_ms: token.created.0,
        expires_ms: token.expires.0,
        by: token.by.to_string(),
        state: token.state.into(),
        used_by: token.used_by.map(|member| member.to_string()).unwrap_or_default(),
    }
}
