//! Everything that a run counts: one table of histograms, one of counters, each with its name in
//! files and targets and a sentence that reports print.

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($(#[$doc:meta])* $kind:ident { $($variant:ident = $name:literal $help:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $kind { $(#[doc = $help] #[serde(rename = $name)] $variant,)* }

        impl $kind {
            /// Every one, in declaration order.
            pub const ALL: &'static [$kind] = &[$($kind::$variant,)*];

            /// Its name in targets and files.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($kind::$variant => $name,)* }
            }

            /// What it is.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $($kind::$variant => $help,)* }
            }

            /// The one of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<$kind> {
                $kind::ALL.iter().copied().find(|k| k.name() == name)
            }
        }
    };
}

names! {
    /// Distributions of durations.
    Hist {
        JoinHttp = "join.http" "From the intended start until the answer: token, signalling, join, SDP.";
        JoinIce = "join.ice" "From the answer until a candidate pair works.";
        JoinDtls = "join.dtls" "From the working pair until DTLS is done.";
        JoinFirstPacket = "join.first_packet" "From DTLS until the first media packet, for clients that receive.";
        JoinFirstFrame = "join.first_frame" "From the first packet until the first frame that a decoder can show.";
        JoinKeys = "join.keys" "From joining the room until the client can seal with its group's keys.";
        JoinTotal = "join.total" "From the intended start until the first frame, or until DTLS for clients that receive nothing.";
        AudioPacket = "audio.packet_latency" "From when a frame was due to be sent until its first packet arrived.";
        AudioFrame = "audio.frame_latency" "From when a frame was due to be sent until it was whole, open and right.";
        AudioBuffer = "audio.jitter_buffer" "What the jitter buffer adds, per frame.";
        VideoPacket = "video.packet_latency" "From when a frame was due to be sent until its first packet arrived.";
        VideoFrame = "video.frame_latency" "From when a frame was due to be sent until it was whole, open and right.";
        VideoBuffer = "video.jitter_buffer" "What the jitter buffer adds, per frame.";
        Freeze = "freeze" "How long the picture stood still, per freeze.";
        SlotChange = "slot_change" "From asking for another track until its first frame that a decoder can show.";
        Pointer = "pointer.latency" "From when a pointer position was due until the others had opened it.";
        Rekey = "group.rekey" "From when a client enters a new epoch of its group until it seals with that one's keys.";
        SendLag = "generator.send_lag" "How late the generator's timers ran.";
        ReceiveLag = "generator.receive_lag" "How long datagrams lay in the kernel before the generator read them.";
        StartLag = "generator.start_lag" "How late the generator began a join that was due.";
        Scrape = "relay.scrape" "How long the relay took to give its metrics.";
    }
}

names! {
    /// Counts.
    Counter {
        JoinStarted = "joins" "Joins begun.";
        JoinDone = "joins_done" "Joins that led to a connected media session.";
        JoinFailed = "join_failures" "Joins that failed, or were under way for 5 s when the run ended.";
        SessionLost = "sessions_lost" "Media sessions or signalling sockets that ended unasked.";
        RequestFailed = "request_failures" "Signalling requests refused after joining.";
        PacketsSent = "packets_sent" "RTP packets sent, retransmissions left out.";
        OctetsSent = "octets_sent" "Payload bytes of those.";
        FramesSent = "frames_sent" "Frames sent.";
        KeyFramesSent = "key_frames_sent" "Key frames sent.";
        Retransmitted = "retransmitted" "Packets sent again on request.";
        KeyRequests = "key_requests" "Key frames that the relay asked for.";
        PacketsReceived = "packets_received" "RTP packets received, retransmissions left out.";
        OctetsReceived = "octets_received" "Payload bytes of those.";
        Repaired = "packets_repaired" "Retransmissions received.";
        PacketsLost = "packets_lost" "Packets that never came, not even again.";
        PacketsLate = "packets_late" "Packets that came twice, or after they were given up.";
        Nacks = "nacks" "Packets asked for again.";
        Plis = "plis" "Key frames asked for.";
        AudioExpected = "audio.frames_expected" "Audio frames that senders sent to slots that show them.";
        AudioReceived = "audio.frames_received" "Audio frames that arrived whole and right.";
        AudioLate = "audio.frames_late" "Audio frames too late for the jitter buffer.";
        VideoExpected = "video.frames_expected" "Video frames that senders sent to slots that show them.";
        VideoReceived = "video.frames_received" "Video frames that arrived whole and right.";
        VideoUndecodable = "video.frames_undecodable" "Video frames that arrived without what they build on.";
        VideoShownMillis = "video.shown_ms" "Viewing time, milliseconds, added up over slots.";
        FramesBroken = "frames_broken" "Frames of which a part never came.";
        SealFailures = "seal_failures" "Frames that arrived whole and whose seal did not open.";
        KeysUnknown = "frames_without_key" "Frames under keys of the group that the client did not hold, or not yet.";
        ContentFailures = "content_failures" "Frames that opened and differ from what was sent.";
        FramesRepeated = "frames_repeated" "Frames that came twice.";
        Misrouted = "misrouted" "Frames of another room, or of a track that the slot does not show.";
        SilentSlots = "silent_slots" "Tracks asked for of which nothing came, though they were being sent.";
        SrtpFailures = "srtp_failures" "Packets whose SRTP or SRTCP did not authenticate.";
        SrtpReplayed = "srtp_replayed" "SRTP packets received twice.";
        Unparsable = "packets_unparsable" "Packets of unknown protocol or SSRC, or malformed.";
        LayerChanges = "layer_changes" "Changes of the encoding that a slot shows, with the track unchanged.";
        EncodingSwitches = "encoding_switches" "Encodings of a simulcast that the relay asked to stop, or to go on with.";
        Pauses = "pauses" "Times that the relay said that nothing of a track fits a client's path.";
        PausedMillis = "paused_ms" "How long slots were paused so, milliseconds, added up.";
        SlotChanges = "slot_changes" "Slots set to another track.";
        Epochs = "group.epochs" "Epochs of groups' keys that clients entered, added up.";
        GroupResets = "group.resets" "Times that a client had to be added to its group again.";
        GroupRefused = "group.refused" "Group messages that the relay refused.";
        GroupErrors = "group.errors" "Group messages that clients refused, and commits that failed.";
        PointersExpected = "pointer.expected" "Pointer positions sent, times the others of the group.";
        PointersReceived = "pointer.received" "Pointer positions that arrived and opened.";
        PointersUnsent = "pointer.unsent" "Pointer positions that could not be sent: no key, or no room in the data channel.";
        MessagesOpened = "messages_opened" "Sealed messages of other members that opened.";
        MessagesUnopened = "messages_unopened" "Sealed messages that did not: of an epoch before the client's own first, or altered.";
        DatagramsSent = "datagrams_sent" "Datagrams sent, of any kind.";
        DatagramsReceived = "datagrams_received" "Datagrams received, of any kind.";
        SendCalls = "generator.send_calls" "System calls to send.";
        ReceiveCalls = "generator.receive_calls" "System calls to receive.";
        SocketDrops = "generator.socket_drops" "Datagrams lost because the generator did not read them in time.";
        SendErrors = "generator.send_errors" "Datagrams that the generator's kernel refused.";
        CpuMicros = "generator.cpu_us" "CPU time of the generator's media threads, microseconds.";
        ControlCpuMicros = "generator.control_cpu_us" "CPU time of the rest of the generator, microseconds.";
        ImpairLost = "impairment.lost" "Datagrams that the configured impairment lost.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for h in Hist::ALL {
            assert_eq!(Hist::from_name(h.name()), Some(*h));
            assert!(Counter::from_name(h.name()).is_none());
            assert_eq!(serde_json::to_value(h).unwrap(), h.name());
        }
        for c in Counter::ALL {
            assert_eq!(Counter::from_name(c.name()), Some(*c));
        }
    }
}
