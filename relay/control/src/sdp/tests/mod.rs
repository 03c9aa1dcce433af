//! Negotiation against offers recorded from real clients.

mod feedback;
mod malformed;
mod red;

use super::*;
use sealcast_model::{Codec, HeaderExtension, MediaKind};

/// Offers as the clients sent them.
const OFFERS: [(&str, &str); 8] = [
    (
        "aiortc",
        include_str!("../../../tests/fixtures/aiortc_offer.sdp"),
    ),
    (
        "chromium, all extensions",
        include_str!("../../../tests/fixtures/chromium156_all_ext_enabled.sdp"),
    ),
    (
        "chromium, all codecs",
        include_str!("../../../tests/fixtures/chromium156_plain_all_codecs.sdp"),
    ),
    (
        "chromium, simulcast",
        include_str!("../../../tests/fixtures/chromium156_simulcast_vp8_av1svc_opus.sdp"),
    ),
    (
        "firefox, simulcast",
        include_str!("../../../tests/fixtures/firefox153_simulcast_offer.sdp"),
    ),
    (
        "gstreamer",
        include_str!("../../../tests/fixtures/gst_offer.sdp"),
    ),
    (
        "werift",
        include_str!("../../../tests/fixtures/werift_offer.sdp"),
    ),
    (
        "node-webrtc",
        include_str!("../../../tests/fixtures/wrtc_offer.sdp"),
    ),
];

fn offer(name: &str) -> SessionDescription {
    let (_, text) = OFFERS.iter().find(|(n, _)| *n == name).unwrap();
    parse(text).unwrap()
}

fn policy() -> MediaPolicy {
    MediaPolicy {
        audio: vec![Codec::Opus],
        video: vec![Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264],
        repair: false,
        transport_cc: false,
        simulcast: false,
    }
}

fn everything() -> MediaPolicy {
    MediaPolicy {
        repair: true,
        transport_cc: true,
        simulcast: true,
        ..policy()
    }
}

fn local() -> LocalTransport {
    let addr = "192.0.2.9:7000".parse().unwrap();
    LocalTransport {
        ufrag: "relayufrag00".into(),
        pwd: "relaypasswordrelaypassword".into(),
        fingerprint: [0xab; 32],
        candidates: host_candidates(&[addr], &[addr]),
    }
}

/// Distinct numbers, as SSRCs need.
fn counter() -> impl FnMut() -> u32 {
    let mut n = 0;
    move || {
        n += 1;
        n
    }
}

fn run(
    offer: &SessionDescription,
    policy: &MediaPolicy,
    previous: Option<&Negotiated>,
) -> Result<Negotiated, SdpError> {
    // Later numbers than in the first round, so that kept SSRCs are kept and not regenerated.
    let mut n = if previous.is_some() { 10_000 } else { 0 };
    let mut next = move || {
        n += 1;
        n
    };
    negotiate(
        offer,
        policy,
        Role::Interactive,
        &local(),
        previous,
        &mut next,
    )
}

fn without_lines(mut d: SessionDescription) -> SessionDescription {
    d.media.iter_mut().for_each(|m| m.line = 0);
    d
}

/// A Chromium-like offer: `media` are (mid, kind, direction).
fn synthetic(media: &[(&str, &str, &str)]) -> String {
    let mids: Vec<&str> = media.iter().map(|m| m.0).collect();
    let mut out = format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n",
        mids.join(" ")
    );
    for (mid, kind, direction) in media {
        let codecs = match *kind {
            "audio" => "UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2",
            "video" => {
                "UDP/TLS/RTP/SAVPF 96 97 98\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:98 VP9/90000"
            }
            _ => "UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000",
        };
        let fingerprint = ["AB"; 32].join(":");
        out.push_str(&format!(
            "m={kind} 9 {codecs}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\n\
             a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
        ));
    }
    out
}

#[test]
fn every_recorded_offer_is_answered_and_the_answer_reads_back() {
    for (name, text) in OFFERS {
        for policy in [policy(), everything()] {
            let offer = parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            let n = run(&offer, &policy, None).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(n.answer.media.len(), offer.media.len(), "{name}");
            let written = n.answer.to_string();
            let back = parse(&written).unwrap_or_else(|e| panic!("{name}: {e}\n{written}"));
            assert_eq!(without_lines(back), n.answer, "{name}");
            assert!(n.answer.ice_lite);
            for (o, a) in offer.media.iter().zip(&n.answer.media) {
                assert_eq!(o.mid, a.mid, "{name}");
                assert!(a.port == 0 || a.transport.setup == Some(Setup::Passive));
                assert!(
                    a.kind().is_none() || a.direction != Direction::SendRecv,
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn senders_of_recorded_offers() {
    let codec_of = |name: &str, policy: &MediaPolicy| -> Vec<(MediaKind, Codec, u8, Option<u8>)> {
        let n = run(&offer(name), policy, None).unwrap();
        n.media
            .receive
            .iter()
            .map(|r| {
                assert_eq!(r.codecs.len(), 1, "{name}");
                let c = &r.codecs[0];
                (r.kind, c.codec, c.pt, c.rtx_pt)
            })
            .collect()
    };
    let (audio, video) = (MediaKind::Audio, MediaKind::Video);
    assert_eq!(
        codec_of("chromium, simulcast", &everything()),
        [
            (audio, Codec::Opus, 111, None),
            (video, Codec::Vp8, 96, Some(97)),
            (video, Codec::Av1, 45, Some(46))
        ]
    );
    assert_eq!(
        codec_of("firefox, simulcast", &policy()),
        [
            (audio, Codec::Opus, 109, None),
            (video, Codec::Vp8, 120, None)
        ]
    );
    // Its audio m-line is bundle-only: port 0, and not rejected.
    assert_eq!(
        codec_of("gstreamer", &policy()),
        [
            (video, Codec::Vp8, 96, None),
            (audio, Codec::Opus, 111, None)
        ]
    );
    assert_eq!(
        codec_of("aiortc", &everything()),
        [
            (video, Codec::Vp8, 97, Some(98)),
            (audio, Codec::Opus, 96, None)
        ]
    );
    let only_h264 = MediaPolicy {
        video: vec![Codec::H264],
        ..everything()
    };
    assert_eq!(
        codec_of("aiortc", &only_h264),
        [
            (video, Codec::H264, 99, Some(100)),
            (audio, Codec::Opus, 96, None)
        ]
    );
}

#[test]
fn streams_are_bound_by_rid_or_by_ssrc() {
    let n = run(&offer("firefox, simulcast"), &everything(), None).unwrap();
    let video = &n.media.receive[1];
    let rids: Vec<&str> = video.rids.iter().map(|r| r.as_str()).collect();
    assert_eq!(rids, ["q", "h", "f"]);
    assert!(video.ssrcs.is_empty());
    // Without simulcast, Firefox's announced streams stand, each with its RTX.
    let repaired = MediaPolicy {
        repair: true,
        ..policy()
    };
    let n = run(&offer("firefox, simulcast"), &repaired, None).unwrap();
    let ssrcs: Vec<_> = n.media.receive[1]
        .ssrcs
        .iter()
        .map(|s| (s.ssrc, s.rtx))
        .collect();
    assert_eq!(ssrcs[0], (3_589_705_074, Some(505_520_655)));
    assert_eq!(ssrcs.len(), 3);
    assert_eq!(n.media.receive[0].ssrcs[0].ssrc, 2_279_370_805);
}

#[test]
fn extensions_share_one_id_space() {
    // werift numbers extensions per m-line: its audio MID is 1, its video MID is 3.
    let n = run(&offer("werift"), &policy(), None).unwrap();
    assert!(n.media.extensions.contains(&(3, HeaderExtension::Mid)));
    assert!(n.media.extensions.contains(&(1, HeaderExtension::Mid)));
    for (i, (id, _)) in n.media.extensions.iter().enumerate() {
        assert!(n.media.extensions[..i].iter().all(|(other, _)| other != id));
    }
    // Firefox takes no dependency descriptor, it only sends one.
    let n = run(&offer("firefox, simulcast"), &policy(), None).unwrap();
    let dd = n.answer.media[1]
        .extensions
        .iter()
        .find(|e| e.extension == HeaderExtension::DependencyDescriptor)
        .unwrap();
    assert_eq!((dd.id, dd.direction), (8, Some(Direction::RecvOnly)));
    assert!(
        n.answer.media[1]
            .extensions
            .iter()
            .all(|e| e.extension != HeaderExtension::PlayoutDelay),
        "offered for receiving only"
    );
}

#[test]
fn an_extension_with_another_id_is_left_out_of_a_slot() {
    let text = synthetic(&[("0", "audio", "recvonly"), ("1", "video", "recvonly")]).replacen(
        "a=extmap:4",
        "a=extmap:7",
        1,
    );
    let n = run(&parse(&text).unwrap(), &policy(), None).unwrap();
    assert_eq!(n.media.extensions, [(7, HeaderExtension::Mid)]);
    assert_eq!(n.answer.media[0].extensions.len(), 1);
    assert!(n.answer.media[1].extensions.is_empty());
}

#[test]
fn slots_pair_audio_with_video_in_one_stream() {
    let text = synthetic(&[
        ("d", "application", "sendrecv"),
        ("s", "video", "sendonly"),
        ("a0", "audio", "recvonly"),
        ("a1", "audio", "recvonly"),
        ("v0", "video", "recvonly"),
        ("v1", "video", "recvonly"),
    ]);
    let n = run(&parse(&text).unwrap(), &everything(), None).unwrap();
    let msids: Vec<String> = n
        .answer
        .media
        .iter()
        .filter_map(|m| m.msid.as_ref())
        .map(|m| format!("{} {}", m.stream, m.track.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        msids,
        [
            "slot-0 slot-audio-0",
            "slot-1 slot-audio-1",
            "slot-0 slot-video-0",
            "slot-1 slot-video-1"
        ]
    );
    assert_eq!(
        n.media.slots.iter().map(|s| s.slot.0).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!(
        n.media.slots[2].codecs.len(),
        2,
        "a slot takes every codec in common"
    );
    let v0 = &n.media.slots[2];
    assert!(n.answer.to_string().contains(&format!(
        "a=ssrc-group:FID {} {}\r\n",
        v0.ssrc,
        v0.rtx_ssrc.unwrap()
    )));
    let mut ssrcs: Vec<u32> = n
        .media
        .slots
        .iter()
        .flat_map(|s| [Some(s.ssrc), s.rtx_ssrc])
        .flatten()
        .collect();
    let count = ssrcs.len();
    ssrcs.sort_unstable();
    ssrcs.dedup();
    assert_eq!((count, ssrcs.len()), (6, 6));
    assert_eq!(n.sctp_port, Some(5000));
    assert_eq!(n.answer.media[0].max_message_size, Some(16_384));
    let with_candidates = n
        .answer
        .media
        .iter()
        .filter(|m| !m.candidates.is_empty())
        .count();
    assert_eq!(
        with_candidates, 1,
        "candidates stand with the bundle's first m-line"
    );
}

#[test]
fn renegotiation_keeps_slots_and_order() {
    let first = synthetic(&[
        ("a", "audio", "recvonly"),
        ("v", "video", "recvonly"),
        ("x", "video", "recvonly"),
    ]);
    let one = run(&parse(&first).unwrap(), &everything(), None).unwrap();
    // "v" is stopped, its m-line is reused by "n", and "t" starts to send.
    let second = synthetic(&[
        ("a", "audio", "recvonly"),
        ("n", "video", "recvonly"),
        ("x", "video", "recvonly"),
        ("t", "video", "sendonly"),
    ]);
    let refused = run(&parse(&second).unwrap(), &everything(), Some(&one))
        .err()
        .unwrap();
    assert_eq!(refused.kind, SdpErrorKind::Changed("the order of m-lines"));
    let stopped = first.replacen("m=video 9", "m=video 0", 1);
    let two = run(&parse(&stopped).unwrap(), &everything(), Some(&one)).unwrap();
    assert_eq!(two.answer.media[1].port, 0);
    let three = run(&parse(&second).unwrap(), &everything(), Some(&two)).unwrap();
    let slot = |n: &Negotiated, mid: &str| {
        n.media
            .slots
            .iter()
            .find(|s| s.mid.as_str() == mid)
            .cloned()
    };
    assert_eq!(slot(&three, "a"), slot(&one, "a"));
    assert_eq!(slot(&three, "x"), slot(&one, "x"));
    assert_ne!(
        slot(&three, "n").unwrap().ssrc,
        slot(&one, "v").unwrap().ssrc
    );
    let msid = |n: &Negotiated, i: usize| n.answer.media[i].msid.clone();
    assert_eq!(msid(&three, 2), msid(&one, 2));
    assert_eq!(three.answer.origin_id, one.answer.origin_id);
    assert_eq!(three.answer.origin_version, 3);
    let fewer = synthetic(&[("a", "audio", "recvonly")]);
    let refused = run(&parse(&fewer).unwrap(), &everything(), Some(&one))
        .err()
        .unwrap();
    assert_eq!(refused.kind, SdpErrorKind::Changed("the number of m-lines"));
    let restarted = first.replace("ice-ufrag:abcd", "ice-ufrag:efgh");
    let refused = run(&parse(&restarted).unwrap(), &everything(), Some(&one))
        .err()
        .unwrap();
    assert_eq!(refused.kind.reason(), "changed");
}

#[test]
fn a_late_data_channel_is_rejected() {
    let one = run(
        &parse(&synthetic(&[("a", "audio", "recvonly")])).unwrap(),
        &policy(),
        None,
    )
    .unwrap();
    let late = synthetic(&[("a", "audio", "recvonly"), ("d", "application", "sendrecv")]);
    let two = run(&parse(&late).unwrap(), &policy(), Some(&one)).unwrap();
    assert_eq!((two.sctp_port, two.answer.media[1].port), (None, 0));
}

#[test]
fn whip_and_whep_take_one_direction() {
    let text = synthetic(&[
        ("a", "audio", "sendrecv"),
        ("v", "video", "recvonly"),
        ("s", "video", "sendonly"),
    ]);
    let offer = parse(&text).unwrap();
    let run = |role| negotiate(&offer, &policy(), role, &local(), None, &mut counter()).unwrap();
    let mids = |n: &Negotiated| {
        let receive: Vec<_> = n.media.receive.iter().map(|r| r.mid.to_string()).collect();
        let slots: Vec<_> = n.media.slots.iter().map(|s| s.mid.to_string()).collect();
        (receive.join(" "), slots.join(" "))
    };
    assert_eq!(mids(&run(Role::Publisher)), ("a s".into(), String::new()));
    assert_eq!(mids(&run(Role::Player)), (String::new(), "a v".into()));
    assert_eq!(mids(&run(Role::Interactive)), ("a s".into(), "v".into()));
    assert_eq!(
        run(Role::Player).answer.media[2].direction,
        Direction::Inactive
    );
}

#[test]
fn a_single_m_line_needs_no_group() {
    let text = synthetic(&[("a", "audio", "sendonly")]);
    let bare = text
        .replace("a=group:BUNDLE a\r\n", "")
        .replace("a=mid:a\r\n", "");
    let n = run(&parse(&bare).unwrap(), &policy(), None).unwrap();
    assert_eq!(n.media.receive.len(), 1);
    assert!(!n.answer.to_string().contains("a=mid"));
    assert!(!n.answer.media[0].candidates.is_empty());
}
