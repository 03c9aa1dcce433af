//! Events that wait for the control plane.

use crate::limits::{EVENT_DATA_BYTES, EVENTS};
use sealcast_model::Event;
use std::collections::VecDeque;

/// A queue that never loses a reply or a state change, and never grows without bound: such events
/// are as many as commands and sessions, and no command is taken while it is full.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    events: VecDeque<Event>,
    data_bytes: usize,
}

impl EventQueue {
    /// Queues an event of which there is a bounded number.
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Queues a data message. False if it was dropped.
    #[must_use]
    pub(crate) fn push_data(&mut self, event: Event) -> bool {
        let bytes = data_len(&event);
        if self.is_full() || self.data_bytes + bytes > EVENT_DATA_BYTES {
            return false;
        }
        self.data_bytes += bytes;
        self.events.push_back(event);
        true
    }

    /// The oldest event.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.data_bytes = self.data_bytes.saturating_sub(data_len(&event));
        Some(event)
    }

    /// Puts an event back that could not be delivered.
    pub(crate) fn unpop(&mut self, event: Event) {
        self.data_bytes += data_len(&event);
        self.events.push_front(event);
    }

    /// The control plane must catch up before more work is taken from it.
    pub(crate) fn is_full(&self) -> bool {
        self.events.len() >= EVENTS
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

fn data_len(event: &Event) -> usize {
    match event {
        Event::Data { data, .. } => data.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealcast_model::SessionId;

    fn data(len: usize) -> Event {
        Event::Data {
            session: SessionId(1),
            binary: true,
            data: vec![0; len],
        }
    }

    #[test]
    fn data_is_dropped_by_bytes_and_by_number() {
        let mut queue = EventQueue::default();
        while queue.push_data(data(16_384)) {}
        assert_eq!(queue.events.len(), EVENT_DATA_BYTES / 16_384);
        let event = queue.pop().unwrap();
        queue.unpop(event);
        assert!(!queue.push_data(data(1)), "put back is as if never taken");
        while queue.pop().is_some() {}
        assert!(queue.is_empty());
        while queue.push_data(data(0)) {}
        assert_eq!(queue.events.len(), EVENTS);
        queue.push(Event::DataOpen {
            session: SessionId(1),
        });
        assert_eq!(
            queue.events.len(),
            EVENTS + 1,
            "a state change is never lost"
        );
    }
}
