//! What happened on a path, tenth of a second by tenth: for who wants to see why an estimate or an
//! allocation is what it is.

use crate::bandwidth::Sample;
use std::fmt::Write;

/// The samples as comma-separated values, with a line of names. Rates are in kbit/s, times in
/// milliseconds.
#[must_use]
pub fn csv(samples: &[Sample]) -> String {
    let mut out = String::from(
        "at,capacity,queue,estimate,delay_based,loss_bound,acknowledged,seen_queue,usage,demand,\
         available,granted,sent,media,key_requests,frames,shown\n",
    );
    let mut before: Option<&Sample> = None;
    for sample in samples {
        let path = &sample.path;
        let parts = &path.parts;
        let rate = |bytes: fn(&Sample) -> u64| {
            let (from, millis) = before.map_or((0, sample.at.as_millis()), |b| {
                (bytes(b), (sample.at - b.at).as_millis())
            });
            u128::from(bytes(sample) - from) * 8 / millis.max(1)
        };
        let kbits = |bits: u64| bits / 1_000;
        let optional = |bits: Option<u64>| bits.map_or(String::new(), |b| kbits(b).to_string());
        let shown: String = sample
            .shown
            .iter()
            .map(|shown| shown.map_or("-".to_owned(), |encoding| encoding.to_string()))
            .collect();
        let asked = sample.key_requests - before.map_or(0, |b| b.key_requests);
        let frames = sample.frames - before.map_or(0, |b| b.frames);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{:?},{},{},{},{},{},{asked},{frames},{shown}",
            sample.at.as_millis(),
            kbits(sample.capacity),
            sample.queue.as_millis(),
            kbits(path.estimate),
            kbits(parts.delay_based),
            optional(parts.loss_bound),
            optional(parts.acknowledged),
            parts.queue.as_millis(),
            parts.usage,
            kbits(parts.demand),
            kbits(path.available),
            kbits(path.granted),
            rate(|s| s.sent),
            rate(|s| s.media),
        );
        before = Some(sample);
    }
    out
}
