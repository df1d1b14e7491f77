//! Who calls.

use crate::mcp::transport::backpressure::{AnswerKind, Reservation};
use hyper::http::request::Parts;
use rmcp::RoleServer;
use rmcp::service::RequestContext;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Who is at the other end of a connection, or of one request's part of it.
#[derive(Debug, Clone)]
pub struct Client {
    name: Arc<str>,
    /// Cancelled when nobody waits there any more.
    gone: CancellationToken,
    answer: Reservation,
}

impl Client {
    /// AnswerKind one message, whose answer takes this share.
    pub fn new(name: &str, gone: CancellationToken, answer: Reservation) -> Self {
        Self {
            name: name.into(),
            gone,
            answer,
        }
    }

    /// Each door puts it into what it passes on: itself, or into the HTTP request's head.
    pub fn of(context: &RequestContext<RoleServer>) -> Self {
        let extensions = &context.extensions;
        let by_http = || extensions.get::<Parts>()?.extensions.get::<Self>();
        let client = extensions.get::<Self>().or_else(by_http);
        client.expect("every door says who calls").clone()
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// When there is room for an answer of so many bytes, as this client has read others. False: it
    /// is there no more.
    pub async fn has_room(
        &self,
        of: AnswerKind,
        bytes: u64,
        context: &RequestContext<RoleServer>,
    ) -> bool {
        tokio::select! {
            () = self.answer.take(of, bytes) => true,
            () = self.gone(context) => false,
        }
    }

    /// When it cancelled this request or is there no more.
    pub async fn gone(&self, context: &RequestContext<RoleServer>) {
        tokio::select! {
            () = self.gone.cancelled() => {}
            () = context.ct.cancelled() => {}
        }
    }
}
