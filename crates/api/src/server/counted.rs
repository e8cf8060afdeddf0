//! The router as one connection sees it: every call is marked on the connection until hyper has its whole reply. `Paced` sees
//! when the system has it, too.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tower::ServiceExt as _;

use super::seats::{Call, Connection};
use crate::client_address::Peer;

/// The connection is being closed, because another one needed its seat.
#[derive(Debug, thiserror::Error)]
#[error("the connection made room for another one")]
pub(super) struct MadeRoom;

#[derive(Debug)]
pub(super) struct Counted {
    pub(super) router: Router,
    pub(super) connection: Arc<Connection>,
    pub(super) peer: Peer,
}

impl hyper::service::Service<Request<Incoming>> for Counted {
    type Response = Response<ReplyBody>;
    type Error = MadeRoom;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, MadeRoom>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        let router = self.router.clone();
        let call = self.connection.begin();
        Box::pin(async move {
            let call = call.ok_or(MadeRoom)?;
            let reply: Result<_, Infallible> = router.oneshot(request.map(Body::new)).await;
            let Ok(reply) = reply;
            Ok(reply.map(|body| ReplyBody { body, _call: call }))
        })
    }
}

/// The body of a reply. hyper drops it as soon as it has the last piece, which may be long before the socket takes that.
#[derive(Debug)]
pub(super) struct ReplyBody {
    body: Body,
    _call: Call,
}

impl hyper::body::Body for ReplyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
