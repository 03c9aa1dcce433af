//! A room's group keys (PROTOCOL.md §11): its delivery service, between what clients send and the
//! room's sockets.
//!
//! The service sits behind a lock of its own, since validating a commit takes milliseconds and the
//! room's lock is for list operations. Whoever changes whether a participant is there or has a
//! socket holds this lock while doing so, and thus the service learns of changes in the order in
//! which they happen. Order of locks: group, then state, never the other way round.

use super::client::Client;
use super::event::message;
use super::room::Room;
use super::{Rooms, Seat};
use crate::clock::Stopwatch;
use crate::metrics::Metrics;
use crate::refusal::{Code, Refusal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sealcast_delivery::{Counters, DeliveryError, DeliveryKey, DeliveryService};
use sealcast_model::{ParticipantId, Time};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The service's timer fires at most this often, whatever deadline it names.
const TIMER_RESOLUTION: Duration = Duration::from_millis(5);

/// The delivery service of a room, or the fact that there is none.
pub(crate) struct Group {
    service: Option<Mutex<Service>>,
    /// The service's deadline changed, or the room closed.
    rearm: Notify,
}

struct Service {
    delivery: DeliveryService,
    /// What its times count from.
    clock: Stopwatch,
    /// What the metrics have seen of its counters.
    counted: Counters,
    /// Whether it is counted as a group.
    active: bool,
    /// A task waits for its deadlines.
    has_timer: bool,
    /// The deadline that the task waits for.
    deadline: Option<Time>,
    metrics: Arc<Metrics>,
}

/// The group while it is locked.
pub(crate) struct LockedGroup<'a>(Option<MutexGuard<'a, Service>>);

impl Group {
    /// A group for a room that is opened now; without a key, none.
    pub(crate) fn new(key: Option<&Arc<DeliveryKey>>, metrics: &Arc<Metrics>) -> Self {
        let service = key.map(|key| {
            Mutex::new(Service {
                delivery: DeliveryService::new(Arc::clone(key)),
                clock: Stopwatch::start(),
                counted: Counters::default(),
                active: false,
                has_timer: false,
                deadline: None,
                metrics: Arc::clone(metrics),
            })
        });
        Group {
            service,
            rearm: Notify::new(),
        }
    }

    /// To be taken before the room's state is locked.
    pub(crate) fn lock(&self) -> LockedGroup<'_> {
        let service = self.service.as_ref();
        LockedGroup(service.map(|s| s.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The room is closed: nothing is waited for any more.
    pub(crate) fn on_room_closed(&self) {
        self.rearm.notify_one();
    }
}

impl LockedGroup<'_> {
    /// A participant with a socket was let in.
    pub(crate) fn on_joined(&mut self, id: ParticipantId) {
        if let Some(service) = &mut self.0 {
            let now = service.clock.now();
            service.delivery.handle_join(now, id);
        }
    }

    /// Its socket is gone, or another one has taken over and has said nothing yet.
    pub(crate) fn on_disconnected(mut self, room: &Room, id: ParticipantId) {
        if let Some(service) = &mut self.0 {
            let now = service.clock.now();
            service.delivery.handle_disconnect(now, id);
            service.flush(room);
        }
    }

    /// It is no longer in the room.
    pub(crate) fn on_left(mut self, room: &Room, id: ParticipantId) {
        if let Some(service) = &mut self.0 {
            let now = service.clock.now();
            service.delivery.handle_leave(now, id);
            service.flush(room);
        }
    }
}

impl Service {
    /// Sends what is to be sent, counts what happened, and sets the timer.
    fn flush(&mut self, room: &Room) {
        #[derive(Serialize)]
        struct GroupMessage {
            r#type: &'static str,
            data: String,
        }
        {
            let mut state = room.lock();
            while let Some(output) = self.delivery.poll_output() {
                let text = message(&GroupMessage {
                    r#type: "group",
                    data: STANDARD.encode(&output.message),
                });
                for id in output.to {
                    if let Some(client) = state.participant(id).and_then(|p| p.client.as_ref()) {
                        client.send(text.clone());
                    }
                }
            }
        }
        let counters = self.delivery.counters();
        self.metrics.group_events(&self.counted, &counters);
        self.counted = counters;
        let active = self.delivery.group().is_some();
        if active != self.active {
            self.active = active;
            self.metrics.group_active(active);
        }
        let deadline = self.delivery.poll_timeout();
        if deadline != self.deadline {
            self.deadline = deadline;
            room.group.rearm.notify_one();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.active {
            self.metrics.group_active(false);
        }
    }
}

impl Rooms {
    /// Takes a client's message to the delivery service. What follows from it goes out to whom it
    /// concerns.
    ///
    /// # Errors
    /// `forbidden` where the rooms have no group keys or another socket has taken over,
    /// `rate_limited`, `bad_group`.
    pub fn group_message(&self, seat: &Seat, client: &Client, data: &[u8]) -> Result<(), Refusal> {
        let room = &seat.room;
        let LockedGroup(Some(mut service)) = room.group.lock() else {
            return Err(Refusal::new(
                Code::Forbidden,
                "rooms of this relay have no group keys",
            ));
        };
        room.lock().check_socket(seat.participant, client)?;
        if !service.has_timer {
            service.has_timer = true;
            self.runtime.spawn(keep_time(Arc::clone(room)));
        }
        let now = service.clock.now();
        let result = service.delivery.handle_message(now, seat.participant, data);
        service.flush(room);
        drop(service);
        self.metrics
            .group_message(result.as_ref().err().map(DeliveryError::code));
        result.map_err(|error| {
            tracing::debug!(room = %room.id, participant = %seat.participant, %error, "group message refused");
            match error {
                DeliveryError::Rate => Refusal::new(
                    Code::RateLimited,
                    "10 group messages a second, 30 at once",
                ),
                error => Refusal {
                    code: Code::BadGroup,
                    message: error.to_string().into(),
                },
            }
        })
    }
}

/// Calls the service when it is due, until the room closes.
async fn keep_time(room: Arc<Room>) {
    loop {
        let deadline = {
            let LockedGroup(Some(service)) = room.group.lock() else {
                return;
            };
            let at = service.deadline.map(|at| service.clock.at(at));
            at.map(|at| at.max(Instant::now() + TIMER_RESOLUTION))
        };
        if room.lock().closed {
            return;
        }
        tokio::select! {
            () = room.group.rearm.notified() => continue,
            () = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
        if let LockedGroup(Some(mut service)) = room.group.lock() {
            let now = service.clock.now();
            service.delivery.handle_timeout(now);
            service.flush(&room);
        }
    }
}
