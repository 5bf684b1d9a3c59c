//! A handler that is woken by the application's names and sees the reference's.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use crate::event::change::ChangeEvent;
use crate::handler::{Context, Handler, HandlerError, Outcome, Spec};
use crate::handlers::names::Names;

/// A handler of the waitlist worker in an application with names of its own.
pub(super) struct Named {
    inner: Arc<dyn Handler>,
    names: Arc<Names>,
}

impl Named {
    fn seen<'e>(&self, event: &'e ChangeEvent) -> Cow<'e, ChangeEvent> {
        self.names
            .reference_event(event)
            .map_or(Cow::Borrowed(event), Cow::Owned)
    }
}

/// The same handlers, woken by the application's names.
pub fn woken_by(names: Names, handlers: Vec<Arc<dyn Handler>>) -> Vec<Arc<dyn Handler>> {
    if names.is_empty() {
        return handlers;
    }
    let names = Arc::new(names);
    let named = handlers.into_iter().map(|inner| {
        let named: Arc<dyn Handler> = Arc::new(Named {
            inner,
            names: Arc::clone(&names),
        });
        named
    });
    named.collect()
}

#[async_trait]
impl Handler for Named {
    fn spec(&self) -> Spec {
        let spec = self.inner.spec();
        Spec {
            routes: spec.routes.iter().filter_map(|route| self.names.route(route)).collect(),
            ..spec
        }
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        self.inner.wants(&self.seen(event))
    }

    fn exclusive(&self, event: &ChangeEvent) -> Option<String> {
        self.inner.exclusive(&self.seen(event))
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let renamed = |event: &Arc<ChangeEvent>| {
            self.names
                .reference_event(event)
                .map_or_else(|| Arc::clone(event), Arc::new)
        };
        context.rename_events(renamed);
        let seen: Vec<Arc<ChangeEvent>> = events.iter().map(renamed).collect();
        self.inner.handle(context, &seen).await
    }
}
