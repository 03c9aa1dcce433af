//! Feedback about the path: what policy and offer share.

use super::*;

#[test]
fn feedback_is_what_policy_and_offer_share() {
    let n = run(&offer("chromium, simulcast"), &policy(), None).unwrap();
    let video = &n.media.receive[1].codecs[0];
    assert_eq!(
        (
            video.pli,
            video.fir,
            video.nack,
            video.transport_cc,
            video.remb
        ),
        (true, true, false, false, false)
    );
    let text = n.answer.to_string();
    assert!(
        text.contains("a=rtcp-fb:96 nack pli\r\n") && text.contains("a=rtcp-fb:96 ccm fir\r\n")
    );
    for absent in [
        "goog-remb",
        "transport-cc",
        "transport-wide-cc",
        "a=rtcp-fb:96 nack\r\n",
        "a=simulcast",
        "a=rid",
        "rtx",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
    let all = run(&offer("chromium, simulcast"), &everything(), None).unwrap();
    let text = all.answer.to_string();
    for present in [
        "a=rtcp-fb:96 transport-cc\r\n",
        "a=rtcp-fb:96 nack\r\n",
        "a=simulcast:recv q;h;f\r\n",
        "a=rid:q recv\r\n",
        "a=fmtp:97 apt=96\r\n",
    ] {
        assert!(text.contains(present), "{present}\n{text}");
    }
    assert!(!text.contains("goog-remb"));
    // REMB is for those who offer nothing better.
    let all = |role: Role, timed: bool| {
        let mut next = 1..;
        let mut next = || next.next().unwrap();
        let mut offer = offer("aiortc");
        for media in offer.media.iter_mut().filter(|_| !timed) {
            let send_time = HeaderExtension::AbsSendTime;
            media.extensions.retain(|ext| ext.extension != send_time);
        }
        let found = negotiate(&offer, &everything(), role, &local(), None, &mut next).unwrap();
        let receive = found.media.receive.into_iter().flat_map(|m| m.codecs);
        let slots = found.media.slots.into_iter().flat_map(|m| m.codecs);
        (
            receive.map(|c| c.remb).collect::<Vec<_>>(),
            slots.map(|c| c.remb).collect::<Vec<_>>(),
        )
    };
    let (sending, _) = all(Role::Publisher, true);
    assert_eq!(sending, [true, false], "of video and audio as offered");
    let (sending, _) = all(Role::Publisher, false);
    assert_eq!(sending, [false, false], "nothing to estimate by");
    let (_, slots) = all(Role::Player, false);
    assert!(slots.iter().any(|remb| *remb));
    // werift offers no FIR.
    let n = run(&offer("werift"), &policy(), None).unwrap();
    assert!(n.media.receive[0].codecs[0].pli && !n.media.receive[0].codecs[0].fir);
}

#[test]
fn feedback_of_rfc_8888_is_taken_where_there_is_no_transport_wide() {
    for direction in ["sendonly", "recvonly"] {
        let text = synthetic(&[("0", "video", direction)]);
        let ccfb = "a=rtcp-fb:* ack ccfb\r\na=rtcp-fb:96 goog-remb\r\n";
        let with = |lines: &str| parse(&format!("{text}{lines}")).unwrap();
        let found = |offer: &SessionDescription, policy: &MediaPolicy| {
            let n = run(offer, policy, None).unwrap();
            let sending = n.media.receive.iter().flat_map(|m| &m.codecs);
            let codecs = sending.chain(n.media.slots.iter().flat_map(|m| &m.codecs));
            let kinds = codecs
                .map(|c| (c.transport_cc, c.ccfb, c.remb))
                .collect::<Vec<_>>();
            (kinds, n.answer.to_string())
        };
        let (kinds, answer) = found(&with(ccfb), &everything());
        assert!(!kinds.is_empty() && kinds.iter().all(|k| *k == (false, true, false)));
        assert_eq!(
            answer.matches("a=rtcp-fb:* ack ccfb\r\n").count(),
            1,
            "{answer}"
        );
        assert!(!answer.contains("goog-remb"));

        let both = format!("{ccfb}a=rtcp-fb:96 transport-cc\r\n");
        let (kinds, _) = found(&with(&both), &everything());
        assert_eq!(kinds.first(), Some(&(true, false, false)));

        let (kinds, answer) = found(&with(ccfb), &policy());
        assert!(kinds.iter().all(|k| *k == (false, false, false)));
        assert!(!answer.contains("ccfb"));
    }
}
