//! The gate in front of every gRPC call and of the artifact endpoint.

use super::Caller;
use super::gate::{Gate, Stopped};
use super::weight::{Call, Scales, Weighed};
use axum::extract::{ConnectInfo, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use kulprit_common::access::{ENDPOINT_READ, ENDPOINT_WRITE, NotAdmitted};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;

/// A tower layer for tonic's server.
#[derive(Clone)]
pub struct Guard {
    gate: Gate,
    scales: Arc<Scales>,
}

impl Guard {
    pub fn new(gate: Gate) -> Self {
        Guard { gate, scales: Arc::default() }
    }
}

impl<S> tower::Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { gate: self.gate.clone(), scales: self.scales.clone(), inner }
    }
}

#[derive(Clone)]
pub struct Guarded<S> {
    gate: Gate,
    scales: Arc<Scales>,
    inner: S,
}

impl<S> tower::Service<http::Request<Body>> for Guarded<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let called = request.uri().host().map(Into::into);
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let passed = match request.extensions_mut().get_mut::<Caller>() {
            Some(caller) => {
                caller.called = called;
                self.gate.check(caller, &method).map(|()| Gate::who(caller)).map_err(status)
            }
            None => Err(Status::internal("a request without a caller")),
        };
        match passed {
            Ok(None) => Box::pin(self.inner.call(request)),
            Ok(Some(who)) => {
                let weighing = Call::new(self.scales.clone(), who);
                let weighed = |body| Body::new(Weighed::new(body, weighing.clone()));
                let answer = self.inner.call(request.map(weighed));
                Box::pin(async move {
                    let answer = answer.await;
                    drop(weighing);
                    answer
                })
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

fn status(stopped: Stopped) -> Status {
    match stopped {
        Stopped::TooFast => Status::resource_exhausted("too many requests; slow down"),
        Stopped::Refused(why) => match &why {
            NotAdmitted::UnknownCall(_) => Status::unimplemented(why.to_string()),
            NotAdmitted::NoCertificate(_) | NotAdmitted::Expired(_) => {
                Status::unauthenticated(why.to_string())
            }
            NotAdmitted::Revoked(_) | NotAdmitted::Replaced(_) | NotAdmitted::WrongRole { .. } => {
                Status::permission_denied(why.to_string())
            }
        },
    }
}

/// The same for the artifact endpoint, as axum's middleware.
pub async fn artifacts(
    State(gate): State<Gate>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let method = match *request.method() {
        Method::GET | Method::HEAD => ENDPOINT_READ,
        _ => ENDPOINT_WRITE,
    };
    let (code, why) = match gate.check(&caller, method) {
        Ok(()) => return next.run(request).await,
        Err(Stopped::TooFast) => (StatusCode::TOO_MANY_REQUESTS, "too many requests".to_owned()),
        Err(Stopped::Refused(why @ (NotAdmitted::NoCertificate(_) | NotAdmitted::Expired(_)))) => {
            (StatusCode::UNAUTHORIZED, why.to_string())
        }
        Err(Stopped::Refused(why)) => (StatusCode::FORBIDDEN, why.to_string()),
    };
    (code, format!("{why}\n")).into_response()
}
