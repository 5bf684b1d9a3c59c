//! Names and what they resolve to: answers that may change from one question to the next.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Mutex;

use afterwrite::clients::webhook::Lookup;
use async_trait::async_trait;

/// A table of names. It notes every question.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Zone {
    /// Names with their answers, in the order in which they are given; the last one is given for ever.
    pub(crate) fn of(entries: &[(&str, &[&[&str]])]) -> Self {
        let parsed = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let answers = entries
            .iter()
            .map(|(name, answers)| ((*name).to_owned(), answers.iter().map(parsed).collect()));
        Self {
            answers: Mutex::new(answers.collect()),
            asked: Mutex::default(),
        }
    }

    pub(crate) fn questions(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl Lookup for Zone {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let Some(left) = answers.get_mut(host) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such name"));
        };
        match left.len() {
            1 => Ok(left[0].clone()),
            _ => Ok(left.pop_front().unwrap()),
        }
    }
}
