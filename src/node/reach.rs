//! The engine's questions of how the node is reached: a task for each, with a time limit.
//!
//! At the end those that take mappings back are waited for a moment, while the chainstate commits.

use super::connection::Surroundings;
use super::inbox::Inbound;
use crate::limits::{ASK_MILLIS, WITHDRAW_MILLIS};
use crate::net::Gateway;
use crate::relay::reach::{AskId, ReachRequest};
use crate::trace;
use core::time::Duration;
use futures::channel::oneshot;
use futures::future::{AbortHandle, Either, abortable, select};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is being asked.
#[derive(Debug)]
pub(super) struct Asking {
    gateway: Option<Arc<dyn Gateway>>,
    tasks: BTreeMap<AskId, AbortHandle>,
    /// Each ends when its task does.
    withdrawals: Vec<oneshot::Receiver<()>>,
}

impl Asking {
    /// Asks there; without a gateway every question is answered by that.
    pub(super) fn new(gateway: Option<Arc<dyn Gateway>>) -> Self {
        Self { gateway, tasks: BTreeMap::new(), withdrawals: Vec::new() }
    }

    /// Begins; `Answered` comes in any case.
    pub(super) fn ask(&mut self, id: AskId, request: ReachRequest, around: &Surroundings) {
        trace::event!(DEBUG, "asking how we are reached", request = format_args!("{request:?}"));
        let inbox = around.inbox.clone();
        let Some(gateway) = &self.gateway else {
            inbox.send(Inbound::Answered(id, Err("there is nobody to ask".into())));
            return;
        };
        let withdraws = matches!(request, ReachRequest::Map { seconds: 0, .. });
        let millis = if withdraws { WITHDRAW_MILLIS } else { ASK_MILLIS };
        let limit = around.executor.timer(Duration::from_millis(millis));
        let (done, ended) = oneshot::channel::<()>();
        let asked = gateway.ask(request);
        let guarded = around.inbox.guard(async move {
            let answer = match select(asked, limit).await {
                Either::Left((answer, _)) => answer.map_err(|error| error.to_string()),
                Either::Right(_) => Err("no answer in time".into()),
            };
            trace::event!(DEBUG, "answered", answer = format_args!("{answer:?}"));
            inbox.send(Inbound::Answered(id, answer));
            drop(done);
        });
        let (task, handle) = abortable(guarded);
        self.tasks.insert(id, handle);
        if withdraws {
            self.withdrawals.push(ended);
        }
        around.executor.spawn(Box::pin(async move {
            let _ = task.await;
        }));
    }

    /// A question is answered.
    pub(super) fn answered(&mut self, id: AskId) {
        self.tasks.remove(&id);
    }

    /// Waits until mappings are taken back, or for as long as that may take.
    pub(super) async fn withdrawn(&mut self) {
        for ended in self.withdrawals.drain(..) {
            // Each has its own limit, and all began at about the same time.
            let _ = ended.await;
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}
