//! [`SessionDescription`] to text.

use super::description::{MediaDescription, SessionDescription};
use std::fmt;

/// Ends a line as RFC 8866 §5 has it.
macro_rules! line {
    ($f:expr, $($arg:tt)*) => {
        write!($f, "{}\r\n", format_args!($($arg)*))
    };
}

impl fmt::Display for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line!(f, "v=0")?;
        line!(
            f,
            "o=- {} {} IN IP4 0.0.0.0",
            self.origin_id,
            self.origin_version
        )?;
        line!(f, "s=-")?;
        line!(f, "t=0 0")?;
        if !self.bundle.is_empty() {
            f.write_str("a=group:BUNDLE")?;
            for mid in &self.bundle {
                write!(f, " {mid}")?;
            }
            f.write_str("\r\n")?;
        }
        if self.ice_lite {
            line!(f, "a=ice-lite")?;
        }
        line!(f, "a=msid-semantic: WMS *")?;
        self.media.iter().try_for_each(|m| m.fmt(f))
    }
}

impl fmt::Display for MediaDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={} {} {}", self.media, self.port, self.protocol)?;
        self.formats.iter().try_for_each(|x| write!(f, " {x}"))?;
        f.write_str("\r\n")?;
        line!(f, "c=IN IP4 0.0.0.0")?;
        if let Some(mid) = &self.mid {
            line!(f, "a=mid:{mid}")?;
        }
        if self.bundle_only {
            line!(f, "a=bundle-only")?;
        }
        write_transport(self, f)?;
        if self.kind().is_some() || self.direction != super::Direction::SendRecv {
            line!(f, "a={}", self.direction.as_str())?;
        }
        if self.rtcp_mux {
            line!(f, "a=rtcp-mux")?;
        }
        if self.rtcp_rsize {
            line!(f, "a=rtcp-rsize")?;
        }
        write_formats(self, f)?;
        write_streams(self, f)?;
        if let Some(port) = self.sctp_port {
            line!(f, "a=sctp-port:{port}")?;
        }
        if let Some(size) = self.max_message_size {
            line!(f, "a=max-message-size:{size}")?;
        }
        Ok(())
    }
}

fn write_transport(m: &MediaDescription, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for candidate in &m.candidates {
        line!(f, "a=candidate:{candidate}")?;
    }
    if m.end_of_candidates {
        line!(f, "a=end-of-candidates")?;
    }
    let t = &m.transport;
    if let Some(ufrag) = &t.ufrag {
        line!(f, "a=ice-ufrag:{ufrag}")?;
    }
    if let Some(pwd) = &t.pwd {
        line!(f, "a=ice-pwd:{pwd}")?;
    }
    if let Some(fingerprint) = &t.fingerprint {
        f.write_str("a=fingerprint:sha-256 ")?;
        for (i, byte) in fingerprint.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        f.write_str("\r\n")?;
    }
    if let Some(setup) = t.setup {
        line!(f, "a=setup:{}", setup.as_str())?;
    }
    Ok(())
}

fn write_formats(m: &MediaDescription, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if m.extmap_allow_mixed {
        line!(f, "a=extmap-allow-mixed")?;
    }
    for ext in &m.extensions {
        write!(f, "a=extmap:{}", ext.id)?;
        if let Some(direction) = ext.direction {
            write!(f, "/{}", direction.as_str())?;
        }
        line!(f, " {}", ext.extension.uri())?;
    }
    for map in &m.rtpmaps {
        write!(f, "a=rtpmap:{} {}/{}", map.pt, map.name, map.clock_rate)?;
        if let Some(channels) = map.channels {
            write!(f, "/{channels}")?;
        }
        f.write_str("\r\n")?;
    }
    for fmtp in &m.fmtps {
        line!(f, "a=fmtp:{} {}", fmtp.pt, fmtp.params)?;
    }
    for (pt, value) in &m.feedback {
        match pt {
            Some(pt) => line!(f, "a=rtcp-fb:{pt} {value}")?,
            None => line!(f, "a=rtcp-fb:* {value}")?,
        }
    }
    Ok(())
}

fn write_streams(m: &MediaDescription, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(msid) = &m.msid {
        write!(f, "a=msid:{}", msid.stream)?;
        if let Some(track) = &msid.track {
            write!(f, " {track}")?;
        }
        f.write_str("\r\n")?;
    }
    for rid in &m.rids {
        let direction = if rid.send { "send" } else { "recv" };
        write!(f, "a=rid:{} {direction}", rid.rid)?;
        if !rid.restrictions.is_empty() {
            write!(f, " {}", rid.restrictions)?;
        }
        f.write_str("\r\n")?;
    }
    write_simulcast(m, f)?;
    for (stream, rtx) in &m.fid_groups {
        line!(f, "a=ssrc-group:FID {stream} {rtx}")?;
    }
    for ssrc in &m.ssrcs {
        match &ssrc.cname {
            Some(cname) => line!(f, "a=ssrc:{} cname:{cname}", ssrc.ssrc)?,
            None => line!(f, "a=ssrc:{}", ssrc.ssrc)?,
        }
    }
    Ok(())
}

fn write_simulcast(m: &MediaDescription, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let lists = [("send", &m.simulcast_send), ("recv", &m.simulcast_recv)];
    let mut written = false;
    for (direction, rids) in lists {
        for (i, rid) in rids.iter().enumerate() {
            match (i, written) {
                (0, false) => write!(f, "a=simulcast:{direction} {rid}")?,
                (0, true) => write!(f, " {direction} {rid}")?,
                _ => write!(f, ";{rid}")?,
            }
            written = true;
        }
    }
    if written { f.write_str("\r\n") } else { Ok(()) }
}
