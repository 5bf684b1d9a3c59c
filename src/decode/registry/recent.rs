//! The schemas that were used last. One never changes under its id, so none is ever asked for anew while it is here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::decode::schema::SchemaDocument;

/// At most so many schemas; the one that was not used for longest makes room.
#[derive(Debug)]
pub(super) struct Recent {
    by_id: HashMap<u32, (u64, Arc<SchemaDocument>)>,
    /// Counts uses: the time of this memory.
    now: u64,
    kept_max: usize,
}

impl Recent {
    /// An empty memory; it keeps one schema at least.
    pub(super) fn new(kept_max: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            now: 0,
            kept_max: kept_max.max(1),
        }
    }

    /// A schema that is here; this counts as a use.
    pub(super) fn get(&mut self, id: u32) -> Option<Arc<SchemaDocument>> {
        self.now += 1;
        let (used, document) = self.by_id.get_mut(&id)?;
        *used = self.now;
        Some(Arc::clone(document))
    }

    /// Keeps a schema. Looking through all for the one to let go is rare: a schema that is kept is not fetched again.
    pub(super) fn keep(&mut self, id: u32, document: &Arc<SchemaDocument>) {
        self.now += 1;
        self.by_id.insert(id, (self.now, Arc::clone(document)));
        while self.by_id.len() > self.kept_max {
            let unused_longest = self.by_id.iter().min_by_key(|(_, (used, _))| *used);
            let Some(id) = unused_longest.map(|(id, _)| *id) else {
                return;
            };
            self.by_id.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::new(2);
        let document = Arc::new(SchemaDocument::default());
        recent.keep(1, &document);
        recent.keep(2, &document);
        assert!(recent.get(1).is_some());
        recent.keep(3, &document);
        let kept = [1, 2, 3].map(|id| recent.get(id).is_some());
        assert_eq!(kept, [true, false, true]);
        recent.keep(3, &document);
        assert_eq!(recent.by_id.len(), 2, "one that is kept again takes no second place");
    }
}
