//! What members tell each other sealed: who they are to the relay, their names, and messages of the
//! application. JSON in UTF-8 (PROTOCOL.md §11.9).

use serde_json::{Map, Value};

/// Longest pseudonym of the relay in bytes. Its own have 19.
pub const MAX_PARTICIPANT_LEN: usize = 64;

/// Longest name in characters, as a member may claim anything.
pub const MAX_NAME_CHARS: usize = 128;

/// Who a member is, by its own word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// The relay's pseudonym, which only the member's own word ties to its leaf.
    pub participant: String,
    /// Display name. Not cleaned of control characters: whoever shows it has to.
    pub name: Option<String>,
    /// Assertion by the application's issuer that holds the name.
    pub assertion: Option<String>,
}

/// The content of a sealed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Who the sender is.
    Presence(Presence),
    /// Everybody is to say who they are.
    Who,
    /// The application's.
    App(Value),
}

impl Content {
    /// The content as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        match self {
            Self::Presence(presence) => {
                put("type", "presence".into());
                put("participant", presence.participant.as_str().into());
                for (field, value) in [("name", &presence.name), ("assertion", &presence.assertion)]
                {
                    if let Some(value) = value {
                        put(field, value.as_str().into());
                    }
                }
            }
            Self::Who => {
                put("type", "who".into());
            }
            Self::App(body) => {
                put("type", "app".into());
                put("body", body.clone());
            }
        }
        Value::Object(fields).to_string().into_bytes()
    }

    /// Reads content; `None` for what is none of these. Messages of a later version are ignored.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let Value::Object(mut fields) = serde_json::from_slice(bytes).ok()? else {
            return None;
        };
        let text = |fields: &Map<String, Value>, name: &str| {
            let text = fields.get(name)?.as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        match fields.get("type")?.as_str()? {
            "who" => Some(Self::Who),
            "app" => Some(Self::App(fields.remove("body").unwrap_or_default())),
            "presence" => {
                let participant = text(&fields, "participant")?;
                if participant.len() > MAX_PARTICIPANT_LEN {
                    return None;
                }
                let name = text(&fields, "name");
                Some(Self::Presence(Presence {
                    participant,
                    name: name.map(|name| name.chars().take(MAX_NAME_CHARS).collect()),
                    assertion: text(&fields, "assertion"),
                }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_survives_the_way() {
        let presence = Presence {
            participant: "PA_0123456789abcdef".into(),
            name: Some("Dr. \"Ada\" Haas →".into()),
            assertion: Some("a.b.c".into()),
        };
        for content in [
            Content::Presence(presence.clone()),
            Content::Presence(Presence {
                name: None,
                assertion: None,
                ..presence
            }),
            Content::Who,
            Content::App(serde_json::json!({"kind": "chat", "text": "hello", "n": [1, null]})),
        ] {
            assert_eq!(Content::decode(&content.encode()), Some(content));
        }
    }

    #[test]
    fn anything_else_is_ignored() {
        let long = format!(
            r#"{{"type":"presence","participant":"{}"}}"#,
            "p".repeat(MAX_PARTICIPANT_LEN + 1)
        );
        for text in [
            "",
            "null",
            "[]",
            "3",
            "{",
            r#"{"type":"presence"}"#,
            r#"{"type":"presence","participant":7}"#,
            r#"{"type":"presence","participant":""}"#,
            r#"{"type":"x"}"#,
            r#"{"participant":"PA_00"}"#,
            &long,
        ] {
            assert_eq!(Content::decode(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Content::decode(&[0xff, 0xfe]), None);
        let long = format!(
            r#"{{"type":"presence","participant":"p","name":"{}"}}"#,
            "é".repeat(1000)
        );
        let Some(Content::Presence(presence)) = Content::decode(long.as_bytes()) else {
            panic!("a long name is cut, not refused");
        };
        assert_eq!(presence.name.map(|name| name.chars().count()), Some(128));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = Content::decode(&bytes);
        }
    }
}
