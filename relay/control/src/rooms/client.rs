//! The way to one client's signalling socket: a bounded queue that never makes anybody wait.

use axum::extract::ws::Utf8Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::{Notify, mpsc};

/// What goes out on a socket.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A message.
    Text(Utf8Bytes),
    /// The last thing: close with this code.
    Close(u16, &'static str),
}

/// The sending end. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    id: u64,
    queue: mpsc::Sender<Outgoing>,
    cut: Arc<Notify>,
}

/// The socket's end.
pub struct ClientQueue {
    /// Messages in order.
    pub messages: mpsc::Receiver<Outgoing>,
    /// Notified when the queue overflowed: the client reads too slowly and must be cut off.
    pub cut: Arc<Notify>,
}

impl Client {
    /// A queue of `capacity` messages.
    #[must_use]
    pub fn new(capacity: usize) -> (Client, ClientQueue) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (queue, messages) = mpsc::channel(capacity);
        let cut = Arc::new(Notify::new());
        let client = Client {
            id: NEXT.fetch_add(1, Relaxed),
            queue,
            cut: Arc::clone(&cut),
        };
        (client, ClientQueue { messages, cut })
    }

    /// Queues a message. A client whose queue is full is cut off; it may resume and gets a
    /// snapshot then, so that nothing is lost but time.
    pub fn send(&self, text: Utf8Bytes) {
        self.push(Outgoing::Text(text));
    }

    /// Queues the end of the socket.
    pub fn close(&self, code: u16, reason: &'static str) {
        self.push(Outgoing::Close(code, reason));
    }

    fn push(&self, message: Outgoing) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message) {
            self.cut.notify_one();
        }
    }

    /// Whether the socket has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.queue.is_closed()
    }

    /// Whether both are ends of one socket.
    #[must_use]
    pub fn is(&self, other: &Client) -> bool {
        self.id == other.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_cuts_the_client_off_and_blocks_nobody() {
        let (client, mut queue) = Client::new(2);
        for n in 0..5 {
            client.send(Utf8Bytes::from(n.to_string()));
        }
        queue.cut.notified().await;
        let mut seen = 0;
        while queue.messages.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 2);
    }
}
