//! A row of dependency descriptors (each behind a length byte) to one reader; what is read is written and read again.

use sealcast_rtp::dd::{DescriptorReader, TemplateStructure};

/// The target.
pub fn run(bytes: &[u8]) {
    let mut reader = DescriptorReader::new();
    let mut rest = bytes;
    while let Some((len, tail)) = rest.split_first() {
        let (descriptor, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let Ok(read) = reader.read(descriptor) else {
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
    }
}
