//! The way to one client's signalling socket: a bounded queue that never makes anybody wait.

use axum::extract::ws::Utf8Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
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
    queued: Arc<Queued>,
    cut: Arc<Notify>,
}

/// Bytes in the queue.
struct Queued {
    bytes: AtomicUsize,
    max: usize,
}

/// The socket's end.
pub struct ClientQueue {
    messages: mpsc::Receiver<Outgoing>,
    queued: Arc<Queued>,
    /// Notified when the queue overflowed: the client reads too slowly and must be cut off.
    pub cut: Arc<Notify>,
}

impl Client {
    /// A queue of `capacity` messages, which hold at most `max_bytes` unless there is just one.
    #[must_use]
    pub fn new(capacity: usize, max_bytes: usize) -> (Client, ClientQueue) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (queue, messages) = mpsc::channel(capacity);
        let cut = Arc::new(Notify::new());
        let queued = Arc::new(Queued {
            bytes: AtomicUsize::new(0),
            max: max_bytes,
        });
        let client = Client {
            id: NEXT.fetch_add(1, Relaxed),
            queue,
            queued: Arc::clone(&queued),
            cut: Arc::clone(&cut),
        };
        let queue = ClientQueue {
            messages,
            queued,
            cut,
        };
        (client, queue)
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
        let len = message.len();
        // Counted before it is queued, so that the socket's end never takes off what is not there.
        let before = self.queued.bytes.fetch_add(len, Relaxed);
        let fits = before == 0 || before + len <= self.queued.max;
        match fits.then(|| self.queue.try_send(message)) {
            Some(Ok(())) => return,
            Some(Err(mpsc::error::TrySendError::Closed(_))) => {}
            None | Some(Err(mpsc::error::TrySendError::Full(_))) => self.cut.notify_one(),
        }
        self.queued.bytes.fetch_sub(len, Relaxed);
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

impl ClientQueue {
    /// The next message; `None` once every sending end is gone.
    pub async fn recv(&mut self) -> Option<Outgoing> {
        let message = self.messages.recv().await?;
        self.queued.bytes.fetch_sub(message.len(), Relaxed);
        Some(message)
    }
}

impl Outgoing {
    /// Bytes that it holds.
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Close(..) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_cuts_the_client_off_and_blocks_nobody() {
        let (client, mut queue) = Client::new(2, 1000);
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

    #[tokio::test]
    async fn bytes_are_bounded_too_and_one_message_always_fits() {
        let (client, mut queue) = Client::new(100, 1000);
        client.send(Utf8Bytes::from("x".repeat(5000)));
        assert!(matches!(queue.recv().await, Some(Outgoing::Text(text)) if text.len() == 5000));
        // Drained, the queue takes as much as at first, again and again.
        for _ in 0..3 {
            for _ in 0..4 {
                client.send(Utf8Bytes::from("x".repeat(250)));
            }
            for _ in 0..4 {
                assert!(queue.recv().await.is_some());
            }
        }
        for _ in 0..5 {
            client.send(Utf8Bytes::from("x".repeat(250)));
        }
        queue.cut.notified().await;
        assert_eq!(queue.queued.bytes.load(Relaxed), 1000, "four of them");
        assert_eq!(queue.messages.len(), 4);
    }
}
