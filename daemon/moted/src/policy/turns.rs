//! Lines of jobs that take turns: users among each other, and each user's connections among
//! themselves, whatever the number of their jobs.

use super::queue::Ticket;
use crate::ids::JobId;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;

/// Jobs in an order.
pub trait Line: Default {
    /// Adds a job, as the last one or as the next.
    fn push(&mut self, ticket: Ticket, next: bool);
    /// Takes the next job out.
    fn pop(&mut self) -> Option<Ticket>;
    /// The next job.
    fn peek(&self) -> Option<&Ticket>;
    /// Takes a job out wherever it is. Answers whether it was there.
    fn remove(&mut self, job: JobId) -> bool;
    /// Jobs in it.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What has a turn of its own.
pub trait Share {
    /// Its number.
    fn key(ticket: &Ticket) -> u64;
}

/// Users have turns.
#[derive(Clone, Debug, Default)]
pub struct ByUser;

/// Connections have turns.
#[derive(Clone, Debug, Default)]
pub struct ByConnection;

/// Lines that take turns.
#[derive(Clone, Debug)]
pub struct Turns<S, L> {
    /// Whose line is not empty, the next one first.
    order: VecDeque<u64>,
    lines: BTreeMap<u64, L>,
    share: PhantomData<S>,
}

impl Share for ByUser {
    fn key(ticket: &Ticket) -> u64 {
        u64::from(ticket.uid)
    }
}

impl Share for ByConnection {
    fn key(ticket: &Ticket) -> u64 {
        ticket.connection.0
    }
}

impl<S, L> Default for Turns<S, L> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            lines: BTreeMap::new(),
            share: PhantomData,
        }
    }
}

impl Line for VecDeque<Ticket> {
    fn push(&mut self, ticket: Ticket, next: bool) {
        if next {
            self.push_front(ticket);
        } else {
            self.push_back(ticket);
        }
    }

    fn pop(&mut self) -> Option<Ticket> {
        self.pop_front()
    }

    fn peek(&self) -> Option<&Ticket> {
        self.front()
    }

    fn remove(&mut self, job: JobId) -> bool {
        let before = VecDeque::len(self);
        self.retain(|ticket| ticket.job != job);
        VecDeque::len(self) < before
    }

    fn len(&self) -> usize {
        VecDeque::len(self)
    }
}

impl<S: Share, L: Line> Turns<S, L> {
    /// As [`Line::pop`], but passes over those whose next job may not come.
    pub fn pop_of(&mut self, may_come: impl Fn(&Ticket) -> bool) -> Option<Ticket> {
        let next = |key: &u64| self.lines.get(key).and_then(Line::peek);
        let place = self
            .order
            .iter()
            .position(|key| next(key).is_some_and(&may_come))?;
        let key = self.order.remove(place)?;
        self.order.push_front(key);
        self.pop()
    }
}

impl<S: Share, L: Line> Line for Turns<S, L> {
    fn push(&mut self, ticket: Ticket, next: bool) {
        let key = S::key(&ticket);
        let line = self.lines.entry(key).or_default();
        let is_new = line.is_empty();
        line.push(ticket, next);
        if next {
            self.order.retain(|other| *other != key);
            self.order.push_front(key);
        } else if is_new {
            self.order.push_back(key);
        }
    }

    fn pop(&mut self) -> Option<Ticket> {
        let key = self.order.pop_front()?;
        let line = self.lines.get_mut(&key)?;
        let ticket = line.pop();
        if line.is_empty() {
            self.lines.remove(&key);
        } else {
            self.order.push_back(key);
        }
        ticket
    }

    fn peek(&self) -> Option<&Ticket> {
        self.lines.get(self.order.front()?)?.peek()
    }

    fn remove(&mut self, job: JobId) -> bool {
        let Some(key) = self
            .lines
            .iter_mut()
            .find_map(|(key, line)| line.remove(job).then_some(*key))
        else {
            return false;
        };
        if self.lines.get(&key).is_some_and(|line| line.is_empty()) {
            self.lines.remove(&key);
            self.order.retain(|other| *other != key);
        }
        true
    }

    fn len(&self) -> usize {
        self.lines.values().map(Line::len).sum()
    }
}
