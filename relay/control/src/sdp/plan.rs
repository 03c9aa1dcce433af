//! The first half of a negotiation: the offer against the rules, and what becomes of each m-line.

use super::codec;
use super::description::{Direction, MediaDescription, SessionDescription, Setup, Transport};
use super::error::{SdpError, SdpErrorKind};
use super::negotiate::{MediaPolicy, RemoteTransport, Role};
use sealcast_model::limits::{SLOTS_PER_SESSION, TRACKS_PER_SESSION};
use sealcast_model::{Codec, CodecParams, HeaderExtension, MediaKind, Mid};

/// What becomes of an offered m-line.
pub(super) enum Section {
    /// Port zero.
    Rejected,
    /// The data channel, with the peer's SCTP port.
    Data(u16),
    /// Audio or video.
    Media(MediaPlan),
}

/// An audio or video m-line that is answered with a port.
pub(super) struct MediaPlan {
    /// Its MID, or a stand-in where a single m-line has none.
    pub(super) mid: Mid,
    pub(super) kind: MediaKind,
    /// As answered: the relay's view.
    pub(super) direction: Direction,
    /// Accepted payload types, in the offer's order.
    pub(super) codecs: Vec<CodecParams>,
}

/// RFC 8829 §5.2.2: m-lines never disappear and never move; only a rejected one may be reused.
pub(super) fn check_order(
    offer: &SessionDescription,
    before: &SessionDescription,
) -> Result<(), SdpError> {
    if offer.media.len() < before.media.len() {
        return Err(SdpErrorKind::Changed("the number of m-lines").into());
    }
    for (now, then) in offer.media.iter().zip(&before.media) {
        let same = now.media == then.media && now.mid == then.mid;
        if !same && then.port != 0 && !now.is_rejected() {
            return Err(SdpErrorKind::Changed("the order of m-lines").at(now.line));
        }
    }
    Ok(())
}

/// Decides on each m-line. `before_had_data`: whether an earlier offer of the session had a data
/// channel; `None` for the first offer.
pub(super) fn plan(
    offer: &SessionDescription,
    policy: &MediaPolicy,
    role: Role,
    before_had_data: Option<bool>,
) -> Result<Vec<Section>, SdpError> {
    let active = offer.media.iter().filter(|m| !m.is_rejected()).count();
    let mut mids: Vec<Mid> = Vec::new();
    let mut out: Vec<Section> = Vec::with_capacity(offer.media.len());
    let (mut sending, mut slots) = (0, 0);
    for offered in &offer.media {
        if let Some(mid) = offered.mid.filter(|_| !offered.is_rejected()) {
            if mids.contains(&mid) {
                return Err(SdpErrorKind::Malformed("mid, used twice").at(offered.line));
            }
            mids.push(mid);
        }
        let first_data = !out.iter().any(|s| matches!(s, Section::Data(_)));
        let section = if offered.is_rejected() {
            Section::Rejected
        } else if offered.is_data_channel() {
            check_bundled(offer, offered, active)?;
            let late = before_had_data == Some(false);
            match offered.sctp_port {
                Some(port) if first_data && !late => Section::Data(port),
                Some(_) => Section::Rejected,
                None => return Err(SdpErrorKind::Missing("sctp-port").at(offered.line)),
            }
        } else if offered.kind().is_some() {
            let mid = check_bundled(offer, offered, active)?;
            plan_media(offered, mid, policy, role)?
        } else {
            Section::Rejected
        };
        if let Section::Media(plan) = &section {
            sending += usize::from(plan.direction == Direction::RecvOnly);
            slots += usize::from(plan.direction == Direction::SendOnly);
        }
        out.push(section);
    }
    if sending > TRACKS_PER_SESSION {
        return Err(SdpErrorKind::TooMany("sending m-lines").into());
    }
    if slots > SLOTS_PER_SESSION {
        return Err(SdpErrorKind::TooMany("slots").into());
    }
    if out.iter().all(|s| matches!(s, Section::Rejected)) {
        return Err(SdpErrorKind::NothingAcceptable.into());
    }
    Ok(out)
}

fn plan_media(
    offered: &MediaDescription,
    mid: Mid,
    policy: &MediaPolicy,
    role: Role,
) -> Result<Section, SdpError> {
    if offered.protocol != "UDP/TLS/RTP/SAVPF" {
        let kind = SdpErrorKind::Unsupported("a transport other than UDP/TLS/RTP/SAVPF");
        return Err(kind.at(offered.line));
    }
    if !offered.rtcp_mux {
        return Err(SdpErrorKind::Missing("rtcp-mux").at(offered.line));
    }
    let mut codecs = codec::acceptable(offered, policy);
    let direction = role.answer(offered.direction);
    if direction == Direction::RecvOnly {
        keep_one(&mut codecs);
        // The relay estimates for senders by the times that packets were sent.
        let timed = offered
            .extensions
            .iter()
            .filter(|ext| ext.direction.unwrap_or_default().sends())
            .any(|ext| ext.extension == HeaderExtension::AbsSendTime);
        codecs.iter_mut().for_each(|codec| codec.remb &= timed);
    }
    Ok(match (offered.kind(), codecs.is_empty()) {
        (Some(kind), false) => Section::Media(MediaPlan {
            mid,
            kind,
            direction,
            codecs,
        }),
        _ => Section::Rejected,
    })
}

/// Leaves one codec of a sending m-line: what a subscriber must be able to take is then certain.
/// RED stays beside its Opus, since the relay takes it apart for who has none.
fn keep_one(codecs: &mut Vec<CodecParams>) {
    let chosen = codecs.iter().find(|c| c.codec != Codec::Red).map(|c| c.pt);
    codecs.retain(|c| Some(c.pt) == chosen || c.codec == Codec::Red);
}

/// The m-line's MID, if it shares the one transport of the session.
fn check_bundled(
    offer: &SessionDescription,
    offered: &MediaDescription,
    active: usize,
) -> Result<Mid, SdpError> {
    match offered.mid {
        Some(mid) if offer.bundle.contains(&mid) => Ok(mid),
        // A single m-line needs neither a group nor a MID.
        mid if active == 1 && offer.bundle.is_empty() => {
            let mid = mid.or_else(|| Mid::new(b"0"));
            mid.ok_or(SdpErrorKind::Missing("mid").at(offered.line))
        }
        Some(_) => {
            Err(SdpErrorKind::Unsupported("an m-line outside the BUNDLE group").at(offered.line))
        }
        None => Err(SdpErrorKind::Missing("mid").at(offered.line)),
    }
}

/// The peer's credentials: those of the first accepted m-line that has them, which every other
/// must repeat or omit.
pub(super) fn remote_transport(
    offer: &SessionDescription,
    plan: &[Section],
) -> Result<RemoteTransport, SdpError> {
    let mut found = Transport::default();
    for (media, section) in offer.media.iter().zip(plan) {
        if matches!(section, Section::Rejected) {
            continue;
        }
        let this = &media.transport;
        merge(&mut found.ufrag, &this.ufrag, "ice-ufrag", media.line)?;
        merge(&mut found.pwd, &this.pwd, "ice-pwd", media.line)?;
        merge(&mut found.setup, &this.setup, "setup", media.line)?;
        merge(
            &mut found.fingerprint,
            &this.fingerprint,
            "fingerprint",
            media.line,
        )?;
    }
    match found.setup {
        // The relay is always DTLS server: it has nothing to send to before ICE has validated
        // the peer's address.
        Some(Setup::Active | Setup::Actpass) => {}
        Some(Setup::Passive) => return Err(SdpErrorKind::Unsupported("a=setup:passive").into()),
        None => return Err(SdpErrorKind::Missing("setup").into()),
    }
    Ok(RemoteTransport {
        ufrag: found.ufrag.ok_or(SdpErrorKind::Missing("ice-ufrag"))?,
        pwd: found.pwd.ok_or(SdpErrorKind::Missing("ice-pwd"))?,
        fingerprint: found
            .fingerprint
            .ok_or(SdpErrorKind::Missing("a SHA-256 fingerprint"))?,
    })
}

fn merge<T: Clone + PartialEq>(
    into: &mut Option<T>,
    from: &Option<T>,
    what: &'static str,
    line: u32,
) -> Result<(), SdpError> {
    match (&into, from) {
        (Some(a), Some(b)) if a != b => Err(SdpErrorKind::Inconsistent(what).at(line)),
        (None, Some(_)) => {
            into.clone_from(from);
            Ok(())
        }
        _ => Ok(()),
    }
}
