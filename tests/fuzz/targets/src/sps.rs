//! Any bytes as an H.264 sequence parameter set: a size that comes of it is one that a level allows, and stays
//! what it is whatever follows the set, and behind any reference bits in the unit's header.

use sealcast_rtp::payload::sps::{MAX_LEN, picture_size};

/// The longest side of level 6.2, in pixels; of fields, twice that in height.
const MAX_SIDE: u16 = 1_055 * 16;

/// The target.
pub fn run(content: &[u8]) {
    let unit = [&[0x67], content].concat();
    let Ok(size) = picture_size(&unit) else {
        return;
    };
    let (width, height) = size;
    assert!((1..=MAX_SIDE).contains(&width) && (1..=2 * MAX_SIDE).contains(&height));
    let longer = [&[0x07], content, &[0xff; 40]].concat();
    assert_eq!(picture_size(&longer), Ok(size));
    let cut = unit.len().min(MAX_LEN + MAX_LEN / 2 + 2);
    assert_eq!(picture_size(&unit[..cut]), Ok(size), "no more is looked at");
}
