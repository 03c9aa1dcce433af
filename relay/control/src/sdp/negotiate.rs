//! Offer to answer (RFC 8829 §5.3, RFC 9429), by the rules of PROTOCOL.md §5.

use super::candidate::Candidate;
use super::codec;
use super::description::{
    Direction, ExtMap, Fingerprint, MediaDescription, Msid, SessionDescription, Setup, SsrcLine,
    Transport,
};
use super::error::{SdpError, SdpErrorKind};
use super::limits;
use super::plan::{self, MediaPlan, Section};
use sealcast_model::limits::{
    DATA_MESSAGE_MAX, EXTENSIONS_PER_SESSION, RIDS_PER_MEDIA, SLOTS_PER_SESSION, SSRCS_PER_SESSION,
};
use sealcast_model::media::AnnouncedSsrc;
use sealcast_model::{
    Codec, HeaderExtension, MediaKind, Mid, ReceiveMedia, Rid, SessionMedia, SlotId, SlotMedia,
};

/// What the relay takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPolicy {
    /// Audio codecs.
    pub audio: Vec<Codec>,
    /// Video codecs.
    pub video: Vec<Codec>,
    /// Retransmission: generic NACK and RTX.
    pub repair: bool,
    /// Transport-wide congestion control.
    pub transport_cc: bool,
    /// Simulcast by RID.
    pub simulcast: bool,
}

impl MediaPolicy {
    pub(super) fn codecs(&self, kind: MediaKind) -> &[Codec] {
        match kind {
            MediaKind::Audio => &self.audio,
            MediaKind::Video => &self.video,
        }
    }

    fn takes(&self, extension: HeaderExtension) -> bool {
        match extension {
            HeaderExtension::TransportCc | HeaderExtension::AbsSendTime => self.transport_cc,
            HeaderExtension::Rid => self.simulcast,
            HeaderExtension::RepairedRid => self.simulcast && self.repair,
            _ => true,
        }
    }
}

/// Who offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client of the signalling protocol: sends, and receives in slots.
    Interactive,
    /// A WHIP client: only sends.
    Publisher,
    /// A WHEP client: only receives.
    Player,
}

impl Role {
    /// What the relay answers to the offered direction.
    pub(super) fn answer(self, offered: Direction) -> Direction {
        let (sends, receives) = (offered.sends(), offered.receives());
        match self {
            Role::Interactive | Role::Publisher if sends => Direction::RecvOnly,
            Role::Interactive | Role::Player if receives => Direction::SendOnly,
            _ => Direction::Inactive,
        }
    }
}

/// Our end of the transport.
#[derive(Clone, Debug)]
pub struct LocalTransport {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// SHA-256 of our DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Our candidates.
    pub candidates: Vec<Candidate>,
}

/// The peer's end of the transport.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteTransport {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// SHA-256 of its DTLS certificate.
    pub fingerprint: Fingerprint,
}

/// The outcome of a negotiation, and what the next one must keep.
#[derive(Clone)]
pub struct Negotiated {
    /// Our answer.
    pub answer: SessionDescription,
    /// What the shard needs.
    pub media: SessionMedia,
    /// The peer's credentials.
    pub remote: RemoteTransport,
    /// The peer's SCTP port, where there is a data channel.
    pub sctp_port: Option<u16>,
    /// Per slot of `media.slots`, its number among those of its kind, as in its `msid`.
    ordinals: Vec<usize>,
}

/// Negotiates `offer`. `previous` is the outcome of the session's last negotiation. `random`
/// yields random numbers for SSRCs and the session id.
///
/// # Errors
/// The rule of PROTOCOL.md §5 that the offer breaks.
pub fn negotiate(
    offer: &SessionDescription,
    policy: &MediaPolicy,
    role: Role,
    local: &LocalTransport,
    previous: Option<&Negotiated>,
    random: &mut dyn FnMut() -> u32,
) -> Result<Negotiated, SdpError> {
    if let Some(previous) = previous {
        plan::check_order(offer, &previous.answer)?;
    }
    let had_data = previous.map(|p| p.sctp_port.is_some());
    let plan = plan::plan(offer, policy, role, had_data)?;
    let remote = plan::remote_transport(offer, &plan)?;
    if previous.is_some_and(|p| p.remote != remote) {
        return Err(SdpErrorKind::Changed("ICE credentials or fingerprint without restart").into());
    }
    let mut answerer = Answerer::new(offer, &plan, policy, previous, random);
    let mut media = Vec::with_capacity(offer.media.len());
    for (offered, section) in offer.media.iter().zip(&plan) {
        media.push(match section {
            Section::Rejected => rejected(offered),
            Section::Data(_) => data_channel(offered),
            Section::Media(plan) if plan.direction == Direction::RecvOnly => {
                answerer.receive(offered, plan)?
            }
            Section::Media(plan) if plan.direction == Direction::SendOnly => {
                answerer.slot(offered, plan)
            }
            Section::Media(plan) => answerer.media(offered, plan),
        });
    }
    let (session, ordinals) = (answerer.out, answerer.ordinals);
    match role {
        Role::Publisher if session.receive.is_empty() => Err(SdpErrorKind::NothingAcceptable),
        Role::Player if session.slots.is_empty() => Err(SdpErrorKind::NothingAcceptable),
        _ => Ok(()),
    }?;
    let sctp_port = plan.iter().find_map(|s| match s {
        Section::Data(port) => Some(*port),
        _ => None,
    });
    let (origin_id, origin_version) = match previous {
        Some(p) => (p.answer.origin_id, p.answer.origin_version.wrapping_add(1)),
        // RFC 8829 §5.2.1: a 63-bit random number.
        None => ((u64::from(random()) << 31) ^ u64::from(random()), 1),
    };
    let mut answer = SessionDescription {
        origin_id,
        origin_version,
        bundle: answer_bundle(offer, &plan),
        ice_lite: true,
        media,
    };
    fill_transport(&mut answer, local);
    Ok(Negotiated {
        answer,
        media: session,
        remote,
        sctp_port,
        ordinals,
    })
}

/// MIDs of the accepted m-lines, in the order of the offered group (RFC 8843 §7.3).
fn answer_bundle(offer: &SessionDescription, plan: &[Section]) -> Vec<Mid> {
    let accepted: Vec<Mid> = offer
        .media
        .iter()
        .zip(plan)
        .filter(|(_, s)| !matches!(s, Section::Rejected))
        .filter_map(|(m, _)| m.mid)
        .collect();
    let mut out: Vec<Mid> = Vec::with_capacity(accepted.len());
    for mid in &offer.bundle {
        if accepted.contains(mid) && !out.contains(mid) {
            out.push(*mid);
        }
    }
    out
}

/// Puts our credentials into every accepted m-line (older stacks look at each) and our candidates
/// into the one that carries the bundle's transport.
fn fill_transport(answer: &mut SessionDescription, local: &LocalTransport) {
    let tagged = answer.bundle.first().copied();
    for media in answer.media.iter_mut().filter(|m| m.port != 0) {
        media.transport = Transport {
            ufrag: Some(local.ufrag.clone()),
            pwd: Some(local.pwd.clone()),
            fingerprint: Some(local.fingerprint),
            setup: Some(Setup::Passive),
        };
        if tagged.is_none() || media.mid == tagged {
            media.candidates.clone_from(&local.candidates);
            media.end_of_candidates = true;
        }
    }
}

fn rejected(offered: &MediaDescription) -> MediaDescription {
    MediaDescription {
        media: offered.media.clone(),
        port: 0,
        protocol: offered.protocol.clone(),
        formats: offered.formats.clone(),
        mid: offered.mid,
        direction: Direction::Inactive,
        ..MediaDescription::default()
    }
}

fn data_channel(offered: &MediaDescription) -> MediaDescription {
    MediaDescription {
        media: offered.media.clone(),
        port: PLACEHOLDER_PORT,
        protocol: offered.protocol.clone(),
        formats: offered.formats.clone(),
        mid: offered.mid,
        sctp_port: Some(LOCAL_SCTP_PORT),
        max_message_size: Some(DATA_MESSAGE_MAX as u64),
        ..MediaDescription::default()
    }
}

/// The discard port, as RFC 8840 §4.1.1 has it: candidates tell the real ones.
const PLACEHOLDER_PORT: u16 = 9;

/// RFC 8841 §5: there is one SCTP association, so the port distinguishes nothing.
const LOCAL_SCTP_PORT: u16 = 5_000;

/// Builds the answer's media sections and, alongside, the shard's view of them.
struct Answerer<'a> {
    policy: &'a MediaPolicy,
    previous: Option<&'a Negotiated>,
    random: &'a mut dyn FnMut() -> u32,
    out: SessionMedia,
    ordinals: Vec<usize>,
    /// SSRCs in use on either side.
    ssrcs: Vec<u32>,
    /// Incoming SSRCs, announced or to come.
    incoming: usize,
}

impl<'a> Answerer<'a> {
    fn new(
        offer: &SessionDescription,
        plan: &[Section],
        policy: &'a MediaPolicy,
        previous: Option<&'a Negotiated>,
        random: &'a mut dyn FnMut() -> u32,
    ) -> Self {
        let accepted: Vec<_> = offer
            .media
            .iter()
            .zip(plan)
            .filter_map(|(m, s)| match s {
                Section::Media(plan) => Some((m, plan)),
                _ => None,
            })
            .collect();
        let mut out = SessionMedia {
            extensions: previous.map_or_else(Vec::new, |p| p.media.extensions.clone()),
            extmap_allow_mixed: accepted.iter().all(|(m, _)| m.extmap_allow_mixed),
            rtcp_rsize: accepted.iter().all(|(m, _)| m.rtcp_rsize),
            ..SessionMedia::default()
        };
        // Slots first: the relay writes an extension with the first id that the list has for it.
        for direction in [Direction::SendOnly, Direction::RecvOnly] {
            for (offered, plan) in accepted.iter().filter(|(_, p)| p.direction == direction) {
                for ext in &offered.extensions {
                    register_extension(&mut out, policy, plan.direction, ext);
                }
            }
        }
        let mut ssrcs: Vec<u32> = accepted
            .iter()
            .flat_map(|(m, _)| m.ssrcs.iter().map(|s| s.ssrc))
            .collect();
        for slot in previous.iter().flat_map(|p| &p.media.slots) {
            ssrcs.push(slot.ssrc);
            ssrcs.extend(slot.rtx_ssrc);
        }
        Answerer {
            policy,
            previous,
            random,
            out,
            ordinals: Vec::new(),
            ssrcs,
            incoming: 0,
        }
    }

    /// What every accepted audio or video section has.
    fn media(&self, offered: &MediaDescription, plan: &MediaPlan) -> MediaDescription {
        let mut section = MediaDescription {
            media: offered.media.clone(),
            port: PLACEHOLDER_PORT,
            protocol: offered.protocol.clone(),
            mid: offered.mid,
            direction: plan.direction,
            rtcp_mux: true,
            rtcp_rsize: self.out.rtcp_rsize,
            extmap_allow_mixed: self.out.extmap_allow_mixed,
            extensions: offered
                .extensions
                .iter()
                .filter_map(|ext| self.answer_extension(plan.direction, ext))
                .collect(),
            ..MediaDescription::default()
        };
        codec::answer(&mut section, offered, &plan.codecs);
        section
    }

    fn answer_extension(&self, direction: Direction, ext: &ExtMap) -> Option<ExtMap> {
        let known = &self.out.extensions;
        let negotiated = match direction {
            // The relay writes with one id per extension, so it must be this one.
            Direction::SendOnly => {
                known.iter().find(|(_, e)| *e == ext.extension) == Some(&(ext.id, ext.extension))
            }
            Direction::RecvOnly => known.contains(&(ext.id, ext.extension)),
            Direction::SendRecv | Direction::Inactive => false,
        };
        (negotiated && usable(direction, ext)).then(|| ExtMap {
            id: ext.id,
            // RFC 8285 §7: an answer reverses the direction of an offered extension.
            direction: ext.direction.map(|d| match d {
                Direction::SendOnly => Direction::RecvOnly,
                Direction::RecvOnly => Direction::SendOnly,
                other => other,
            }),
            extension: ext.extension,
        })
    }

    /// A section on which the client sends.
    fn receive(
        &mut self,
        offered: &MediaDescription,
        plan: &MediaPlan,
    ) -> Result<MediaDescription, SdpError> {
        let mut section = self.media(offered, plan);
        let rids = self.simulcast(offered, &section, plan)?;
        for rid in offered.rids.iter().filter(|r| rids.contains(&r.rid)) {
            let mut line = rid.clone();
            line.send = false;
            section.rids.push(line);
        }
        section.simulcast_recv.clone_from(&rids);
        let repaired = plan.codecs.iter().any(|c| c.rtx_pt.is_some());
        let ssrcs = if rids.is_empty() {
            announced(offered, repaired)
        } else {
            Vec::new()
        };
        let streams = ssrcs.len() + rids.len();
        self.incoming += if repaired { 2 * streams } else { streams };
        if self.incoming > SSRCS_PER_SESSION {
            return Err(SdpErrorKind::TooMany("SSRCs").at(offered.line));
        }
        self.out.receive.push(ReceiveMedia {
            mid: plan.mid,
            kind: plan.kind,
            codecs: plan.codecs.clone(),
            rids,
            ssrcs,
        });
        Ok(section)
    }

    /// RIDs to receive; empty where simulcast is not offered, not wanted, or cannot be told apart.
    fn simulcast(
        &self,
        offered: &MediaDescription,
        section: &MediaDescription,
        plan: &MediaPlan,
    ) -> Result<Vec<Rid>, SdpError> {
        let has = |e| section.extensions.iter().any(|x| x.extension == e);
        if !self.policy.simulcast || !has(HeaderExtension::Mid) || !has(HeaderExtension::Rid) {
            return Ok(Vec::new());
        }
        let mut out: Vec<Rid> = Vec::new();
        for rid in &offered.simulcast_send {
            let line = offered.rids.iter().find(|l| l.rid == *rid && l.send);
            let wanted = line.is_some_and(|l| fits_codecs(&l.restrictions, plan));
            if wanted && !out.contains(rid) {
                out.push(*rid);
            }
        }
        if out.len() > RIDS_PER_MEDIA {
            return Err(SdpErrorKind::TooMany("simulcast streams").at(offered.line));
        }
        Ok(out)
    }

    /// A section on which the relay sends.
    fn slot(&mut self, offered: &MediaDescription, plan: &MediaPlan) -> MediaDescription {
        let kept = self.previous.and_then(|p| {
            let index = p.media.slots.iter().position(|s| s.mid == plan.mid)?;
            let slot = p.media.slots.get(index)?;
            (slot.kind == plan.kind).then_some((slot, *p.ordinals.get(index)?))
        });
        let ordinal = match kept {
            Some((_, ordinal)) => ordinal,
            None => self.free_ordinal(plan.kind),
        };
        let slot = match kept {
            Some((slot, _)) => slot.slot,
            None => self.free_slot(),
        };
        let ssrc = match kept {
            Some((slot, _)) => slot.ssrc,
            None => self.new_ssrc(),
        };
        let rtx_ssrc = match (plan.codecs.iter().any(|c| c.rtx_pt.is_some()), kept) {
            (false, _) => None,
            (true, Some((slot, _))) if slot.rtx_ssrc.is_some() => slot.rtx_ssrc,
            (true, _) => Some(self.new_ssrc()),
        };
        let mut section = self.media(offered, plan);
        let kind = offered.media.as_str();
        let stream = format!("slot-{ordinal}");
        section.ssrcs = [Some(ssrc), rtx_ssrc]
            .into_iter()
            .flatten()
            .map(|ssrc| SsrcLine {
                ssrc,
                cname: Some(stream.clone()),
            })
            .collect();
        section.fid_groups.extend(rtx_ssrc.map(|rtx| (ssrc, rtx)));
        section.msid = Some(Msid {
            stream,
            track: Some(format!("slot-{kind}-{ordinal}")),
        });
        self.ordinals.push(ordinal);
        self.out.slots.push(SlotMedia {
            slot,
            mid: plan.mid,
            kind: plan.kind,
            codecs: plan.codecs.clone(),
            ssrc,
            rtx_ssrc,
        });
        section
    }

    /// The lowest number that no slot of this kind has, nor had before this offer.
    fn free_ordinal(&self, kind: MediaKind) -> usize {
        let of = |media: &'_ SessionMedia, ordinals: &[usize], n: usize| {
            let mut pairs = media.slots.iter().zip(ordinals);
            pairs.any(|(s, o)| s.kind == kind && *o == n)
        };
        let taken = |n: &usize| {
            of(&self.out, &self.ordinals, *n)
                || self.previous.is_some_and(|p| of(&p.media, &p.ordinals, *n))
        };
        (0..2 * limits::MEDIA_SECTIONS)
            .find(|n| !taken(n))
            .unwrap_or(0)
    }

    /// The lowest slot index that no slot has, nor had before this offer if there is another.
    fn free_slot(&self) -> SlotId {
        let used = |media: &SessionMedia, n: u16| media.slots.iter().any(|s| s.slot.0 == n);
        let now = |n: &u16| !used(&self.out, *n);
        let kept = |n: &u16| !self.previous.is_some_and(|p| used(&p.media, *n));
        let range = 0..SLOTS_PER_SESSION as u16;
        let fresh = range.clone().find(|n| now(n) && kept(n));
        SlotId(fresh.or_else(|| range.clone().find(now)).unwrap_or(0))
    }

    fn new_ssrc(&mut self) -> u32 {
        loop {
            let ssrc = (self.random)();
            // Zero is legal but some stacks take it for "none".
            if ssrc != 0 && !self.ssrcs.contains(&ssrc) {
                self.ssrcs.push(ssrc);
                return ssrc;
            }
        }
    }
}

/// Adds an extension to the session's id space, if it fits there.
fn register_extension(
    out: &mut SessionMedia,
    policy: &MediaPolicy,
    direction: Direction,
    ext: &ExtMap,
) {
    let known = &mut out.extensions;
    // RFC 8285 §4.2: ids above 14 need the two-byte form.
    let expressible = ext.id <= 14 || out.extmap_allow_mixed;
    // RFC 8843 §9: "the same extension ID value MUST NOT be used for two extensions".
    let free = known.iter().all(|(id, _)| *id != ext.id);
    let first = known.iter().all(|(_, e)| *e != ext.extension);
    // A further id for a known extension is of use only on the way in.
    let wanted = first || direction == Direction::RecvOnly;
    if policy.takes(ext.extension)
        && usable(direction, ext)
        && expressible
        && free
        && wanted
        && known.len() < EXTENSIONS_PER_SESSION
    {
        known.push((ext.id, ext.extension));
    }
}

/// Whether the peer sends (or takes) the extension where we receive (or send).
fn usable(direction: Direction, ext: &ExtMap) -> bool {
    let offered = ext.direction.unwrap_or_default();
    match direction {
        Direction::RecvOnly => offered.sends(),
        Direction::SendOnly => offered.receives(),
        Direction::SendRecv | Direction::Inactive => false,
    }
}

/// SSRCs named by `a=ssrc`, each with its retransmissions.
fn announced(offered: &MediaDescription, repaired: bool) -> Vec<AnnouncedSsrc> {
    let groups = &offered.fid_groups;
    offered
        .ssrcs
        .iter()
        .filter(|s| !groups.iter().any(|(_, rtx)| *rtx == s.ssrc))
        .map(|s| AnnouncedSsrc {
            ssrc: s.ssrc,
            rtx: groups
                .iter()
                .find(|(stream, _)| repaired && *stream == s.ssrc)
                .map(|(_, rtx)| *rtx),
        })
        .collect()
}

/// RFC 8851 §5: `pt=` restricts an encoding to these payload types.
fn fits_codecs(restrictions: &str, plan: &MediaPlan) -> bool {
    let pts = restrictions.split(';').find_map(|r| r.strip_prefix("pt="));
    pts.is_none_or(|list| {
        list.split(',')
            .filter_map(|pt| pt.parse::<u8>().ok())
            .any(|pt| plan.codecs.iter().any(|c| c.pt == pt))
    })
}
