//! A panic of the core is a violation like any other, not the end of the test.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::invariant::{Checked, Invariant};

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `step`; its panic becomes a violation and prints nothing.
pub(crate) fn quietly(step: impl FnOnce()) -> Checked {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
    let ended = catch_unwind(AssertUnwindSafe(step));
    QUIET.set(false);
    let Err(payload) = ended else { return Ok(()) };
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or(payload.downcast_ref::<&str>().copied());
    Invariant::NoPanic.violated(text.unwrap_or("the core panicked"))
}
