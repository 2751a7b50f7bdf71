//! How members get in: tokens and certificate requests become certificates.

use super::Services;
use crate::door::Caller;
use crate::door::authority::{Authority, Request as CertificateRequest};
use kulprit_common::access::{AccessAnswer, AccessEvent, Peer};
use kulprit_common::farm::action::Answer;
use kulprit_common::farm::event::Event;
use kulprit_common::id::{AgentId, Digest};
use kulprit_proto::v1;
use kulprit_proto::v1::enrol_server::Enrol;
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Enrol for Services {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let ip = Caller::of(&request)?.ip;
        let request = request.into_inner();
        let authority = self.authority()?;
        let name: AgentId =
            request.name.parse().map_err(|error| Status::invalid_argument(format!("name: {error}")))?;
        let csr = read(&request.csr)?;
        let token = Digest::of(&request.secret);
        let event = AccessEvent::Join { token, name: name.clone(), key: csr.key };
        let member = match self.driver.tell(Event::Access(Box::new(event))).await? {
            Some(Answer::Access(AccessAnswer::Joined(member))) => member,
            Some(Answer::Access(AccessAnswer::Refused(why))) => {
                tracing::warn!(%ip, %name, token = token.short(), %why, "a join was refused");
                return Err(Status::permission_denied(why.to_string()));
            }
            _ => return Err(Status::internal("the farm gave no answer")),
        };
        let chain = authority.sign(csr, &member).map_err(|error| failed(&error))?;
        tracing::info!(%ip, %member, token = token.short(), "joined");
        Ok(Response::new(v1::JoinResponse {
            chain,
            ca: authority.ca_pem.clone(),
            role: member.role.to_string(),
            name: member.name.to_string(),
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let authority = self.authority()?;
        let Peer::Certified { member, key, .. } = &*caller.peer else {
            return Err(Status::unauthenticated("there is no certificate to renew"));
        };
        let csr = read(&request.into_inner().csr)?;
        if csr.key != *key {
            return Err(Status::invalid_argument("csr: is for another key than the certificate in use"));
        }
        let chain = authority.sign(csr, member).map_err(|error| failed(&error))?;
        tracing::info!(%member, "certificate renewed");
        Ok(Response::new(v1::RenewResponse { chain, ca: authority.ca_pem.clone() }))
    }
}

impl Services {
    pub(super) fn authority(&self) -> Result<Arc<Authority>, Status> {
        let authority = self.keys.as_ref().and_then(|keys| keys.authority());
        authority.ok_or_else(|| {
            Status::failed_precondition(
                "this coordinator issues no certificates: it has no CA (`kulprit ca init`), or that is elsewhere",
            )
        })
    }
}

fn read(csr: &[u8]) -> Result<CertificateRequest, Status> {
    CertificateRequest::read(csr).map_err(|why| Status::invalid_argument(format!("csr: {why}")))
}

fn failed(error: &anyhow::Error) -> Status {
    tracing::error!(error = format!("{error:#}"), "a certificate could not be signed");
    Status::internal("the certificate could not be signed; the coordinator's log says why")
}
