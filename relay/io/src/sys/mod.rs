//! The system calls that the standard library does not offer, each behind a safe function.
//!
//! This is the only module of the relay with unsafe code. Nothing here knows what a packet means.

#![expect(unsafe_code, reason = "system calls; every block says why it is sound")]

mod addr;
mod affinity;
mod cmsg;
mod epoll;
mod errqueue;
mod interfaces;
mod prefetch;
mod recv;
mod send;
mod socket;
mod steer;

pub(crate) use affinity::pin_to_core;
pub use affinity::{run_realtime, usable_cores};
pub(crate) use epoll::{Epoll, EventFd, Ready};
pub(crate) use errqueue::{Left, take_error};
pub use interfaces::interface_addresses;
pub(crate) use prefetch::prefetch;
pub(crate) use recv::{Message, ReceiveBatch, Timestamps};
pub(crate) use send::{Datagram, MESSAGES, SendBatch};
#[cfg(test)]
pub(crate) use socket::refuse_segmentation;
pub(crate) use socket::{UdpOptions, bind_udp, listen_tcp, set_tcp_options, wait_writable};
pub(crate) use steer::steer;

use std::io;

/// The result of a system call that answers -1 on failure.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
