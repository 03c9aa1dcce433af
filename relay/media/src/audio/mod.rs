//! Who speaks: from the audio levels that publishers put beside their sealed audio (RFC 6464).

mod active_speaker;

pub use active_speaker::{ActiveSpeaker, SpeakerChange};
