//! One receiver: takes media, and tells the relay how it arrives.

use crate::Result;
use crate::client::{Client, Features, TRANSPORT_CC_ID, VIDEO_PT, slot_ssrc};
use sealcast_media::bwe::TwccReceiver;
use sealcast_model::Time;
use sealcast_rtp::RtpHeader;
use sealcast_rtp::rtcp::{ReportBlock, RtcpWriter};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// One packet in so many is opened, to see that it is what it should be.
const OPENED: u64 = 64;
/// Time between receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Receive buffer, bytes: a scheduler's time slice of what one receiver gets.
static RECEIVE_BUFFER: libc::c_int = 1 << 20;
/// What receivers call themselves.
const SENDER_SSRC: u32 = 1;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) media: bool,
    pub(super) opened: bool,
}

pub(super) struct Receiver {
    client: Client,
    arrivals: Option<TwccReceiver>,
    media: u64,
    highest: u16,
    next_report: Instant,
}

impl Receiver {
    pub(super) fn new(index: u32, client: Client, features: Features) -> Receiver {
        Receiver {
            client,
            arrivals: features.transport_cc.then(TwccReceiver::new),
            media: 0,
            highest: 0,
            // Spread over the interval.
            next_report: crate::clock::now() + REPORT_INTERVAL * (index % 16) / 16,
        }
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.client.link().socket
    }

    /// Takes a datagram that arrived `elapsed` after the start.
    pub(super) fn take(&mut self, elapsed: Duration, datagram: &mut [u8]) -> Result<Taken> {
        let mut taken = Taken::default();
        // STUN, RTCP, padding and retransmissions are none of the media that is counted.
        let is_rtp = matches!(datagram, [128..=191, kind, ..] if !(192..=223).contains(kind));
        if !is_rtp {
            return Ok(taken);
        }
        let header = RtpHeader::parse_protected(datagram)?;
        if let (Some(arrivals), Some(&[high, low])) = (
            &mut self.arrivals,
            header.extension(datagram, TRANSPORT_CC_ID),
        ) {
            let at = Time::from_micros(elapsed.as_micros() as u64);
            arrivals.on_packet(at, u16::from_be_bytes([high, low]));
        }
        if header.payload_type != VIDEO_PT {
            return Ok(taken);
        }
        taken.media = true;
        self.media += 1;
        self.highest = header.sequence_number;
        if self.media.is_multiple_of(OPENED) {
            self.client.open_rtp(datagram)?;
            taken.opened = true;
        }
        Ok(taken)
    }

    /// Sends what is due, and returns how many packets that was.
    pub(super) fn upkeep(&mut self, now: Instant, elapsed: Duration) -> Result<u64> {
        self.client.keep_alive(now)?;
        let mut sent = 0;
        let at = Time::from_micros(elapsed.as_micros() as u64);
        while let Some(arrivals) = &mut self.arrivals {
            let mut buf = [0; 1_200];
            let mut writer = RtcpWriter::new(&mut buf);
            let more = arrivals.write_feedback(at, SENDER_SSRC, slot_ssrc(1), &mut writer);
            let len = writer.finish();
            if len > 0 {
                self.client.send_rtcp(&buf[..len])?;
                sent += 1;
            }
            if !more {
                break;
            }
        }
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.report()?;
            sent += 1;
        }
        Ok(sent)
    }

    fn report(&mut self) -> Result<()> {
        let mut buf = [0; 64];
        let mut writer = RtcpWriter::new(&mut buf);
        let block = ReportBlock {
            ssrc: slot_ssrc(1),
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_sequence: self.highest.into(),
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        };
        writer.receiver_report(SENDER_SSRC, &[block])?;
        let len = writer.finish();
        self.client.send_rtcp(&buf[..len])
    }
}

/// Gives a receiver's socket room.
#[expect(unsafe_code, reason = "setsockopt")]
pub(super) fn enlarge_buffer(socket: &UdpSocket) -> io::Result<()> {
    // SAFETY: the kernel reads one integer of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const RECEIVE_BUFFER).cast(),
            size_of_val(&RECEIVE_BUFFER) as u32,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
