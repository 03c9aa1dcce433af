//! A row of dependency descriptors (each behind a length byte) to one reader; what is read is written and read again,
//! whole and with other active decode targets.

use sealcast_rtp::dd::{
    DependencyDescriptor, DescriptorReader, TemplateStructure, write_active_decode_targets,
};

/// The most that telling active decode targets adds: five flags and a mask of 32 bits, in whole bytes.
const MOST_ADDED: usize = 6;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut reader = DescriptorReader::new();
    let mut rest = bytes;
    while let Some((len, tail)) = rest.split_first() {
        let (descriptor, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let Ok(read) = reader.read(descriptor) else {
            change_unread(descriptor, *len);
            continue;
        };
        let structure: &TemplateStructure = reader
            .structure()
            .expect("nothing reads without a structure");
        for target in 0..usize::from(structure.decode_target_count()) {
            let (spatial, temporal) = structure.decode_target_layer(target).expect("counted");
            assert!(
                spatial <= structure.max_spatial_id() && temporal <= structure.max_temporal_id()
            );
            assert!(
                structure
                    .protecting_chain(target)
                    .is_none_or(|c| c < usize::from(structure.chain_count()))
            );
        }
        let mut out = [0; 4096];
        let len = read
            .write(structure, &mut out)
            .expect("what was read can be written");
        assert!(
            len <= descriptor.len(),
            "never longer than the shortest form the sender chose"
        );
        let mut again = reader.clone();
        assert_eq!(again.read(&out[..len]), Ok(read));
        assert_eq!(again.structure(), reader.structure());
        for active in [0, read.frame.dtis.present(), structure.all_decode_targets()] {
            change(descriptor, &read, &reader, active);
        }
    }
}

/// Gives a descriptor other active decode targets: that changes nothing else, and the same again
/// changes nothing at all.
fn change(descriptor: &[u8], read: &DependencyDescriptor, reader: &DescriptorReader, active: u32) {
    let count = reader
        .structure()
        .map_or(0, TemplateStructure::decode_target_count);
    let mut out = [0; 512];
    let len = write_active_decode_targets(descriptor, count, active, &mut out)
        .expect("what was read can be changed");
    assert!(len <= descriptor.len() + MOST_ADDED);
    let expected = DependencyDescriptor {
        active_decode_targets: Some(active),
        ..*read
    };
    let mut again = reader.clone();
    assert_eq!(again.read(&out[..len]), Ok(expected));
    assert_eq!(again.structure(), reader.structure());
    let mut twice = [0; 512];
    let same = write_active_decode_targets(&out[..len], count, active, &mut twice);
    assert_eq!(same, Ok(len));
    assert_eq!(twice[..len], out[..len]);
    for short in [0, 2, len - 1] {
        assert!(
            write_active_decode_targets(descriptor, count, active, &mut out[..short]).is_err(),
            "it does not fit {short} bytes"
        );
    }
}

/// As the relay may do with a descriptor whose structure it lacks: it is refused, or changed without
/// leaving its bounds.
fn change_unread(descriptor: &[u8], count: u8) {
    let mut out = [0; 512];
    if let Ok(len) = write_active_decode_targets(descriptor, count, 1, &mut out) {
        assert!(len <= descriptor.len() + MOST_ADDED);
    }
}
