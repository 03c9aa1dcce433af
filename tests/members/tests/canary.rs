//! The relay holds no secret of a group whose handshakes it orders: members hand the test every
//! private key and every secret that they hold, over joins, a rotation and a leave, and the test
//! looks for them in the relay's memory, its log and its metrics. What the relay does hold is
//! looked for by the same search, and found.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use sealcast_members::{Needle, Peer, Relay, scan};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// Of these kinds there must be secrets, or the test looks for less than it says.
const KINDS: [&str; 8] = [
    "signature_key.private",
    "private_key",
    "private_init_key",
    "exporter_secret",
    "init_secret",
    "membership_key",
    "SFrame 1.0 Base Key",
    "Sealcast 1.0 Metadata",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_a_group_is_in_the_relays_memory_log_or_metrics() {
    let relay = Relay::start().await;
    let (frames, _) = broadcast::channel(1 << 12);
    let mut secrets = BTreeMap::new();
    let mut peers = Vec::new();
    for id in 0..3 {
        let token = relay.token("canary").await;
        peers.push(Peer::join(id, relay.signal_url(), token, frames.clone()));
        agree(&peers, 0).await;
        take(&peers, &mut secrets).await;
    }
    let words = [
        "{\"type\":\"presence\",\"name\":\"Dr. Canary of the Coal Mine\"}",
        "{\"type\":\"app\",\"body\":{\"kind\":\"chat\",\"text\":\"a canary sings\"}}",
    ];
    for word in words {
        peers[0].say(word.into()).await;
    }
    let epoch = peers[0].state.borrow().epoch.unwrap();
    peers[1].rotate().await;
    agree(&peers, epoch + 1).await;
    take(&peers, &mut secrets).await;
    assert!(secrets.len() >= 60, "{} secrets", secrets.len());
    for kind in KINDS {
        assert!(
            secrets.values().any(|name: &String| name.contains(kind)),
            "no {kind}"
        );
    }

    let mut needles: Vec<Needle> = Vec::new();
    for (bytes, name) in &secrets {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        needles.push(Needle {
            name: name.clone(),
            bytes: bytes.clone(),
        });
        needles.push(Needle {
            name: format!("{name} in hex"),
            bytes: hex.into_bytes(),
        });
    }
    for word in words {
        needles.push(Needle {
            name: word.into(),
            bytes: word.into(),
        });
    }
    let (found, searched) = scan(relay.pid(), &needles);
    assert!(searched > 1 << 20, "{searched} bytes");
    assert_eq!(found, Vec::<String>::new());
    let written = relay.written() + &relay.metrics().await;
    assert!(written.contains("joined") && written.contains("sealcast_groups 1"));
    for needle in &needles {
        let here = memchr::memmem::find(written.as_bytes(), &needle.bytes);
        assert_eq!(here, None, "{} was written", needle.name);
    }

    // The credentials, which the relay does see, are where the search looks.
    let known = ["id:member-0", "id:member-1"].map(|name| Needle {
        name: name.into(),
        bytes: name.into(),
    });
    let (found, _) = scan(relay.pid(), &known);
    assert_eq!(found.len(), known.len(), "{found:?}");
    for (id, peer) in peers.into_iter().enumerate() {
        let end = peer.stop().await;
        assert_eq!(end.surprises, Vec::<String>::new(), "member {id}");
        let heard = if id == 0 { 0 } else { words.len() };
        assert_eq!(
            end.heard.len(),
            heard,
            "member {id} could read what was said"
        );
    }
}

/// Waits until all are one group in `epoch` or a later one, and seal with its keys.
async fn agree(peers: &[Peer], epoch: u64) {
    let agreed = || {
        let first = peers[0].state.borrow().clone();
        first.epoch >= Some(epoch)
            && peers.iter().all(|peer| {
                let state = peer.state.borrow();
                state.authenticator.is_some()
                    && state.authenticator == first.authenticator
                    && state.members == peers.len()
                    && state.sending == state.epoch
            })
    };
    let wait = async {
        while !agreed() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the members agree");
}

/// Takes every secret of every member, by its bytes.
async fn take(peers: &[Peer], secrets: &mut BTreeMap<Vec<u8>, String>) {
    for peer in peers {
        for (name, bytes) in peer.secrets().await {
            secrets.insert(bytes, name);
        }
    }
}
