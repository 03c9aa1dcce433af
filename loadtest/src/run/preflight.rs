//! Before the run: is the relay there, does it give tokens, has it what the scenario needs?

use super::Options;
use crate::http::{self, HttpError};
use crate::result::{FORMAT, Meta, RunResult};
use crate::scenario::{KeySource, Lane, Scenario};
use crate::tokens::{TokenError, Wanted};
use serde::Deserialize;

/// What the relay says of itself.
#[derive(Clone, Debug, Default)]
pub struct Preflight {
    /// Its version.
    pub version: Option<String>,
    /// What the scenario wants and the relay, or this generator, lacks.
    pub not_supported: Vec<String>,
}

/// Why the run cannot be.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Nobody there, or no relay.
    #[error("{0}/v1/config: {1}")]
    Unreachable(String, HttpError),
    /// Not a relay of ours.
    #[error("{0}/v1/config does not read: {1}")]
    NoRelay(String, serde_json::Error),
    /// No tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The scenario would say nothing.
    #[error("not supported: {}", .0.join("; "))]
    NotSupported(Vec<String>),
}

#[derive(Deserialize)]
struct Config {
    version: Option<String>,
    #[serde(default)]
    simulcast: bool,
    /// `group` or `link`.
    #[serde(default)]
    keys: String,
    /// Lanes beside media that the relay offers.
    #[serde(default)]
    lanes: Vec<String>,
}

impl Preflight {
    /// Looks at the relay.
    ///
    /// # Errors
    /// [`PreflightError`].
    pub async fn look(options: &Options) -> Result<Preflight, PreflightError> {
        if options.whip.is_some() {
            return look_at_whip(options);
        }
        let target = &options.target;
        let unreachable = |e| PreflightError::Unreachable(target.clone(), e);
        let uri = http::join(target, "/v1/config").map_err(unreachable)?;
        let get = options
            .http
            .request(hyper::Method::GET, &uri, &[], Vec::new());
        let response = get.await.map_err(unreachable)?;
        let config: Config = serde_json::from_slice(&response.body)
            .map_err(|e| PreflightError::NoRelay(target.clone(), e))?;
        let wanted = Wanted {
            room: format!("load-{}-preflight", options.tag),
            subject: "load-preflight".to_owned(),
            publish: vec![],
            subscribe: true,
            unsealed: false,
        };
        options.tokens.token(&options.http, &wanted).await?;
        let missing = config.missing(&options.scenario.needs);
        if !missing.is_empty() {
            return Err(PreflightError::NotSupported(missing));
        }
        if options.scenario.keys == KeySource::Group && config.keys != "group" {
            let lack = "the relay's rooms have no group keys".to_owned();
            return Err(PreflightError::NotSupported(vec![lack]));
        }
        Ok(Preflight {
            not_supported: config.lacks(&options.scenario),
            version: config.version,
        })
    }
}

impl Config {
    /// Lanes that the relay, or this generator, does not have.
    fn missing(&self, lanes: &[Lane]) -> Vec<String> {
        let groups = self.keys == "group";
        let text = |lane: &Lane| {
            let offered = self.lanes.iter().any(|l| l == lane.name());
            let who = if offered {
                "this generator does not drive"
            } else {
                "the relay does not offer"
            };
            format!("{who} the lane {:?}", lane.name())
        };
        // Beside media, the generator drives groups, and messages sealed with their keys.
        let lacking = |l: &&Lane| **l == Lane::Objects || !groups;
        lanes.iter().filter(lacking).map(text).collect()
    }

    fn lacks(&self, scenario: &Scenario) -> Vec<String> {
        let mut lacks = self.missing(&scenario.wants);
        let simulcast =
            |r: &crate::scenario::Role| r.video.as_ref().is_some_and(|v| !v.simulcast.is_empty());
        if scenario.roles.iter().any(simulcast) && !self.simulcast {
            lacks.push(
                "the relay does not take simulcast; video is sent in its largest encoding alone"
                    .to_owned(),
            );
        }
        lacks
    }
}

/// A server of WHIP says nothing of itself; what the protocol lacks is known.
fn look_at_whip(options: &Options) -> Result<Preflight, PreflightError> {
    let config = Config {
        version: None,
        simulcast: false,
        keys: String::new(),
        lanes: vec![],
    };
    let missing = config.missing(&options.scenario.needs);
    if !missing.is_empty() {
        return Err(PreflightError::NotSupported(missing));
    }
    let mut not_supported = config.lacks(&options.scenario);
    let h264 = |r: &crate::scenario::Role| {
        let video = r.video.as_ref();
        video.is_some_and(|v| v.codec == crate::model::Codec::H264)
    };
    if options.scenario.roles.iter().any(h264) {
        let lack = "this generator sends no H264 that is not sealed".to_owned();
        return Err(PreflightError::NotSupported(vec![lack]));
    }
    let slots = |r: &crate::scenario::Role| r.audio_slots.max(r.video_slots) > 1;
    if options.scenario.roles.iter().any(slots) {
        not_supported.push("WHEP plays one audio and one video track to each player".to_owned());
    }
    if options.scenario.churn.is_some_and(|c| c.slot_changes > 0.0) {
        not_supported.push("WHEP has no slots to change".to_owned());
    }
    Ok(Preflight {
        version: None,
        not_supported,
    })
}

/// The result of a run that could not be.
#[must_use]
pub fn could_not_run(options: &Options, error: &PreflightError) -> RunResult {
    let not_supported = match error {
        PreflightError::NotSupported(what) => what.clone(),
        _ => vec![],
    };
    RunResult {
        format: FORMAT,
        meta: Meta {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            target: options.target.clone(),
            signalling: "sealcast".to_owned(),
            seed: options.seed,
            ..Meta::default()
        },
        scenario: options.scenario.clone(),
        not_supported,
        errors: [(error.to_string(), 1)].into(),
        ..RunResult::default()
    }
}
