//! Offers that break rules, exceed limits, or are noise.

use super::*;
use proptest::prelude::*;

#[test]
fn broken_rules_are_named() {
    let good = synthetic(&[("a", "audio", "sendonly"), ("v", "video", "recvonly")]);
    let error = |text: &str| match parse(text) {
        Err(e) => e,
        Ok(offer) => run(&offer, &policy(), None)
            .err()
            .unwrap_or_else(|| panic!("accepted\n{text}")),
    };
    let cases: [(&str, &str, SdpErrorKind); 13] = [
        ("v=0", "v=1", SdpErrorKind::NotSdp),
        (
            "a=setup:actpass",
            "a=setup:passive",
            SdpErrorKind::Unsupported("a=setup:passive"),
        ),
        ("a=setup:actpass\r\n", "", SdpErrorKind::Missing("setup")),
        ("a=rtcp-mux\r\n", "", SdpErrorKind::Missing("rtcp-mux")),
        (
            "BUNDLE a v",
            "BUNDLE a",
            SdpErrorKind::Unsupported("an m-line outside the BUNDLE group"),
        ),
        ("a=mid:v\r\n", "", SdpErrorKind::Missing("mid")),
        (
            "a=mid:v\r\n",
            "a=mid:a\r\n",
            SdpErrorKind::Malformed("mid, used twice"),
        ),
        (
            "a=mid:v",
            "a=mid:0123456789abcdefg",
            SdpErrorKind::Malformed("mid (1–16 visible ASCII bytes)"),
        ),
        (
            "sha-256",
            "sha-1",
            SdpErrorKind::Missing("a SHA-256 fingerprint"),
        ),
        (
            "a=ice-ufrag:abcd",
            "a=ice-ufrag:abc",
            SdpErrorKind::Malformed("ice-ufrag"),
        ),
        (
            "UDP/TLS/RTP/SAVPF",
            "RTP/AVP",
            SdpErrorKind::Unsupported("a transport other than UDP/TLS/RTP/SAVPF"),
        ),
        (
            "a=extmap:4",
            "a=extmap:15",
            SdpErrorKind::Malformed("extmap"),
        ),
        (
            "opus/48000/2",
            "opus/48000/x",
            SdpErrorKind::Malformed("rtpmap"),
        ),
    ];
    for (from, to, kind) in cases {
        assert!(good.contains(from), "{from}");
        assert_eq!(error(&good.replace(from, to)).kind, kind, "{from} -> {to}");
    }
    let differing = good.replacen("ice-ufrag:abcd", "ice-ufrag:efgh", 1);
    assert_eq!(
        error(&differing).kind,
        SdpErrorKind::Inconsistent("ice-ufrag")
    );
    let line = error(&good.replace("opus/48000/2", "opus/48000/x")).line;
    assert_eq!(line, Some(7), "the rtpmap's line");
    let foreign = good
        .replace("opus", "speex")
        .replace("VP8", "Theora")
        .replace("VP9", "Dirac");
    assert_eq!(error(&foreign).kind, SdpErrorKind::NothingAcceptable);
}

#[test]
fn sizes_are_bounded() {
    let huge = format!("v=0\r\n{}", "a=x\r\n".repeat(2 << 20));
    assert_eq!(parse(&huge).unwrap_err().kind, SdpErrorKind::TooLarge);
    let many = format!("v=0\r\n{}", "m=audio 9 R 0\n".repeat(161));
    assert_eq!(
        parse(&many).unwrap_err().kind,
        SdpErrorKind::TooManyMediaSections
    );
    let ten_thousand = format!("v=0\n{}", "m=a 9 R 0\n".repeat(10_000));
    assert!(parse(&ten_thousand).unwrap_err().kind.is_size());
    let long = format!("v=0\r\na={}\r\n", "x".repeat(limits::LINE_BYTES));
    assert_eq!(parse(&long).unwrap_err().kind, SdpErrorKind::LineTooLong);
    let wide = format!("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF{}\r\n", " 1".repeat(129));
    assert_eq!(
        parse(&wide).unwrap_err().kind,
        SdpErrorKind::TooMany("formats")
    );
    let slots: Vec<String> = (0..129).map(|n| n.to_string()).collect();
    let slots: Vec<_> = slots
        .iter()
        .map(|m| (m.as_str(), "video", "recvonly"))
        .collect();
    let error = run(&parse(&synthetic(&slots)).unwrap(), &policy(), None)
        .err()
        .unwrap();
    assert_eq!(error.kind, SdpErrorKind::TooMany("slots"));
    assert!(run(&parse(&synthetic(&slots[..128])).unwrap(), &policy(), None).is_ok());
    let senders: Vec<_> = slots[..17]
        .iter()
        .map(|(m, k, _)| (*m, *k, "sendonly"))
        .collect();
    let error = run(&parse(&synthetic(&senders)).unwrap(), &policy(), None)
        .err()
        .unwrap();
    assert_eq!(error.kind, SdpErrorKind::TooMany("sending m-lines"));
}

#[test]
fn every_reason_is_a_known_label() {
    for kind in [
        SdpErrorKind::TooLarge,
        SdpErrorKind::TooMany("x"),
        SdpErrorKind::NotSdp,
        SdpErrorKind::Malformed("x"),
        SdpErrorKind::Missing("x"),
        SdpErrorKind::Unsupported("x"),
        SdpErrorKind::Inconsistent("x"),
        SdpErrorKind::Changed("x"),
        SdpErrorKind::NothingAcceptable,
    ] {
        assert!(SdpErrorKind::REASONS.contains(&kind.reason()));
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,400}") {
        let _ = parse(&text);
        let _ = parse(&format!("v=0\n{text}"));
    }

    /// Lines of real offers, shuffled, cut and repeated: far more of it parses than of noise.
    #[test]
    fn mangled_offers_never_panic_and_answers_read_back(
        which in 0..OFFERS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4u8), 0..12),
        all in any::<bool>(),
    ) {
        let mut lines: Vec<String> = OFFERS[which].1.lines().map(str::to_owned).collect();
        for (a, b, edit) in edits {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            match edit {
                0 => lines.swap(a, b),
                1 => { let line = lines[a].clone(); lines.insert(b, line); }
                2 => { lines.remove(a); }
                _ => { let cut = b % (lines[a].len() + 1); lines[a].truncate(cut); }
            }
            if lines.is_empty() { break; }
        }
        if let Ok(offer) = parse(&lines.join("\n")) {
            // What we write we read: parsed offers are as good a source as answers.
            let again = parse(&offer.to_string()).expect("what we write, we read");
            prop_assert_eq!(again.media.len(), offer.media.len());
            let policy = if all { everything() } else { policy() };
            if let Ok(n) = run(&offer, &policy, None) {
                let back = parse(&n.answer.to_string()).expect("what we write, we read");
                prop_assert_eq!(without_lines(back), n.answer.clone());
                prop_assert!(n.media.slots.len() <= 128 && n.media.receive.len() <= 16);
                let again = run(&offer, &policy, Some(&n)).expect("the same offer again");
                prop_assert_eq!(&again.media, &n.media);
            }
        }
    }
}
