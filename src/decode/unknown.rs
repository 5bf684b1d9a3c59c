//! What a registry is certain not to have, and what is said of a record that needs it.

use std::fmt;

/// A schema that cannot be had, whole or in part. A registry that does not answer is no reason to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The schema a record was written with.
    pub id: u32,
    /// What of it is missing.
    pub lack: Lack,
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The schema itself.
    Schema,
    /// A schema that it refers to, directly or not.
    Reference {
        /// The subject of that schema.
        subject: String,
        /// Its version of the subject.
        version: u32,
    },
    /// Nothing is, but it refers to more schemas than anything that a connector writes.
    Limit {
        /// How many it may refer to.
        references_max: usize,
    },
}

impl Unknown {
    /// A schema that nobody knows.
    pub fn schema(id: u32) -> Self {
        Self { id, lack: Lack::Schema }
    }

    /// Whether it may be there when it is asked for again: a registry may lag behind the producer that registered it.
    pub(crate) fn may_appear(&self) -> bool {
        match self.lack {
            Lack::Schema | Lack::Reference { .. } => true,
            Lack::Limit { .. } => false,
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id;
        match &self.lack {
            Lack::Schema => write!(out, "the registry has no schema {id}"),
            Lack::Reference { subject, version } => write!(
                out,
                "schema {id} refers to version {version} of subject {subject}, which the registry does not have"
            ),
            Lack::Limit { references_max } => write!(out, "schema {id} refers to more than {references_max} schemas"),
        }
    }
}
