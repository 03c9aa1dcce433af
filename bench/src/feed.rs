//! Publishers: send SRTP that was sealed beforehand, no faster than it is forwarded.

use crate::{Result, clock};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A packet that takes longer than this over loopback was lost.
pub const LOST: Duration = Duration::from_secs(2);
/// Most packets under way to a relay: half of what a socket buffer of default size holds.
const WINDOW: usize = 48;
/// How often a publisher that may not send looks again.
const PATIENCE: Duration = Duration::from_micros(20);

/// One publisher's packets and the socket they come from.
pub struct Feed {
    /// The publisher's socket.
    pub socket: UdpSocket,
    /// Sealed packets, in order.
    pub packets: Vec<Vec<u8>>,
}

/// Sends every publisher's packets to `to`, a frame of each in turn. At most one frame of each
/// publisher, and no more than a socket buffer holds, is ahead of what `consumed` says.
///
/// # Errors
/// If a socket fails, or nothing is consumed for [`LOST`].
pub fn send(
    feeds: &[Feed],
    frame: usize,
    to: SocketAddr,
    consumed: impl Fn() -> u64,
) -> Result<()> {
    let window = (feeds.len() * frame).min(WINDOW).max(frame) as u64;
    let mut frames: Vec<_> = feeds.iter().map(|f| f.packets.chunks(frame)).collect();
    let mut sent = 0;
    loop {
        let mut ended = true;
        for (feed, frames) in feeds.iter().zip(&mut frames) {
            let Some(frame) = frames.next() else {
                continue;
            };
            ended = false;
            sent += frame.len() as u64;
            wait_until(|| sent <= consumed() + window)?;
            for packet in frame {
                feed.socket.send_to(packet, to)?;
            }
        }
        if ended {
            return Ok(());
        }
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// If it does not within [`LOST`].
pub fn wait_until(condition: impl Fn() -> bool) -> Result<()> {
    let start = clock::now();
    while !condition() {
        if start.elapsed() > LOST {
            return Err("packets were lost on their way".into());
        }
        clock::sleep(PATIENCE);
    }
    Ok(())
}
