//! RED (RFC 2198) beside Opus.

use super::*;

fn with_red() -> MediaPolicy {
    MediaPolicy {
        audio: vec![Codec::Opus, Codec::Red],
        ..everything()
    }
}

/// Audio in one direction with these payload types, and their `rtpmap` and `fmtp` lines.
fn audio_offer(direction: &str, formats: &str, lines: &[&str]) -> SessionDescription {
    let text = synthetic(&[("0", "audio", direction)]);
    let opus = "SAVPF 111\r\na=rtpmap:111 opus/48000/2";
    let wanted = format!("SAVPF {formats}\r\n{}", lines.join("\r\n"));
    parse(&text.replace(opus, &wanted)).unwrap()
}

#[test]
fn red_is_taken_beside_its_opus_in_the_offers_order() {
    let lines = [
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
    ];
    for (direction, formats) in [
        ("sendonly", "63 111"),
        ("sendonly", "111 63"),
        ("recvonly", "111 63"),
    ] {
        let offer = audio_offer(direction, formats, &lines);
        let n = run(&offer, &with_red(), None).unwrap();
        let codecs = match direction {
            "sendonly" => &n.media.receive[0].codecs,
            _ => &n.media.slots[0].codecs,
        };
        let types: Vec<_> = codecs.iter().map(|c| c.pt.to_string()).collect();
        assert_eq!(types.join(" "), formats);
        let text = n.answer.to_string();
        for line in [
            &format!("m=audio 9 UDP/TLS/RTP/SAVPF {formats}")[..],
            "a=rtpmap:63 red/48000/2",
            "a=fmtp:63 111/111",
        ] {
            assert!(text.contains(&format!("{line}\r\n")), "{line}\n{text}");
        }
        if let Some(receive) = n.media.receive.first() {
            assert_eq!(receive.codec().map(|c| c.codec), Some(Codec::Opus));
        }
        // Where the relay is set up without it.
        let n = run(&offer, &everything(), None).unwrap();
        assert!(!n.answer.to_string().contains("red/48000"));
    }
}

#[test]
fn red_of_anything_but_the_m_lines_opus_is_left_out() {
    let opus = "a=rtpmap:111 opus/48000/2";
    let cases: [&[&str]; 7] = [
        // What its blocks are is not said.
        &[opus, "a=rtpmap:63 red/48000/2"],
        &[opus, "a=rtpmap:63 red/48000/2", "a=fmtp:63 111/13"],
        &[opus, "a=rtpmap:63 red/48000/2", "a=fmtp:63 112/112"],
        &[opus, "a=rtpmap:63 red/48000/2", "a=fmtp:63 nonsense"],
        &[opus, "a=rtpmap:63 red/8000", "a=fmtp:63 111/111"],
        &[opus, "a=rtpmap:63 red/90000", "a=fmtp:63 111/111"],
        &[
            "a=rtpmap:111 PCMU/8000",
            "a=rtpmap:63 red/48000/2",
            "a=fmtp:63 111/111",
        ],
    ];
    for lines in cases {
        let offer = audio_offer("sendonly", "63 111", lines);
        match run(&offer, &with_red(), None) {
            Ok(n) => assert!(!n.answer.to_string().contains("red"), "{lines:?}"),
            Err(_) => assert!(!lines.contains(&opus), "{lines:?}"),
        }
    }
    let only = MediaPolicy {
        audio: vec![Codec::Red],
        ..everything()
    };
    let lines = [opus, "a=rtpmap:63 red/48000/2", "a=fmtp:63 111/111"];
    let offer = audio_offer("sendonly", "63 111", &lines);
    assert!(
        run(&offer, &only, None).is_err(),
        "RED is redundancy of something"
    );
}

#[test]
fn chromiums_red_is_taken() {
    let n = run(&offer("chromium, all codecs"), &with_red(), None).unwrap();
    let audio = n.media.receive.iter().find(|r| r.kind == MediaKind::Audio);
    let codecs = audio.map(|r| r.codecs.iter().map(|c| (c.codec, c.pt)).collect::<Vec<_>>());
    assert_eq!(codecs, Some(vec![(Codec::Opus, 111), (Codec::Red, 63)]));
}
