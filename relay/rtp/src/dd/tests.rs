use super::*;
use proptest::prelude::*;

fn dtis(text: &str) -> Dtis {
    text.chars()
        .map(|c| match c {
            '-' => Dti::NotPresent,
            'D' => Dti::Discardable,
            'S' => Dti::Switch,
            _ => Dti::Required,
        })
        .collect()
}

fn template(layer: (u8, u8), text: &str, diffs: &[u16], chains: &[u8]) -> FrameDependencies {
    let mut frame = FrameDependencies {
        spatial_id: layer.0,
        temporal_id: layer.1,
        dtis: dtis(text),
        ..Default::default()
    };
    assert!(diffs.iter().all(|diff| frame.frame_diffs.push(*diff)));
    frame.chain_diffs[..chains.len()].copy_from_slice(chains);
    frame
}

/// Appendix A.10.2: "L1T3 Single Spatial Layer with 3 Temporal Layers".
fn l1t3(offset: u8) -> TemplateStructure {
    let templates = [
        template((0, 0), "SSS", &[], &[0]),
        template((0, 0), "SSS", &[4], &[4]),
        template((0, 1), "-DS", &[2], &[2]),
        template((0, 2), "--D", &[1], &[1]),
        template((0, 2), "--D", &[1], &[3]),
    ];
    TemplateStructure::new(offset, 3, 1, &[0, 0, 0], &templates, Some(&[(1280, 720)]))
        .expect("representable")
}

fn descriptor(structure: &TemplateStructure, index: u8, frame_number: u16) -> DependencyDescriptor {
    let template_id = (structure.template_id_offset() + index) & 63;
    DependencyDescriptor {
        mandatory: MandatoryFields {
            start_of_frame: true,
            end_of_frame: false,
            template_id,
            frame_number,
        },
        frame: *structure.template(template_id).expect("present"),
        active_decode_targets: None,
        has_structure: false,
    }
}

/// Shadow reader for the structure and frame: text of bits, consumed from the front, following the syntax tables.
/// Returns (per template: spatial, temporal, DTIs, fdiffs, chain fdiffs) and the frame's own DTIs, fdiffs and chains.
#[derive(Debug, PartialEq, Default, Clone)]
struct NaiveFrame {
    layer: (u8, u8),
    dtis: Vec<u32>,
    diffs: Vec<u16>,
    chains: Vec<u8>,
}

struct NaiveBits(String);

impl NaiveBits {
    fn f(&mut self, n: usize) -> Option<u32> {
        if self.0.len() < n {
            return None;
        }
        let field: String = self.0.drain(..n).collect();
        if n == 0 {
            Some(0)
        } else {
            u32::from_str_radix(&field, 2).ok()
        }
    }

    fn ns(&mut self, n: u32) -> Option<u32> {
        let (mut w, mut x) = (0, n);
        while x != 0 {
            x >>= 1;
            w += 1;
        }
        let m = (1 << w) - n;
        let v = self.f(w - 1)?;
        if v < m {
            Some(v)
        } else {
            Some((v << 1) - m + self.f(1)?)
        }
    }
}

fn naive_key(bytes: &[u8]) -> Option<(Vec<NaiveFrame>, NaiveFrame, u32)> {
    let mut b = NaiveBits(bytes.iter().map(|byte| format!("{byte:08b}")).collect());
    b.f(2)?;
    let (id, _number) = (b.f(6)?, b.f(16)?);
    let (structure, active, custom_dtis, custom_diffs, custom_chains) =
        (b.f(1)?, b.f(1)?, b.f(1)?, b.f(1)?, b.f(1)?);
    if structure == 0 {
        return None;
    }
    let (offset, targets) = (b.f(6)?, b.f(5)? + 1);
    let (mut templates, mut layer) = (Vec::new(), (0, 0));
    loop {
        templates.push(NaiveFrame {
            layer,
            ..Default::default()
        });
        match b.f(2)? {
            0 => {}
            1 => layer.1 += 1,
            2 => layer = (layer.0 + 1, 0),
            _ => break,
        }
        if templates.len() == 64 || layer.0 > 3 || layer.1 > 7 {
            return None;
        }
    }
    for t in &mut templates {
        t.dtis = (0..targets).map(|_| b.f(2)).collect::<Option<_>>()?;
    }
    for t in &mut templates {
        while b.f(1)? == 1 {
            t.diffs.push(b.f(4)? as u16 + 1);
        }
        if t.diffs.len() > 8 {
            return None;
        }
    }
    let chains = b.ns(targets + 1)?;
    if chains > 0 {
        for _ in 0..targets {
            b.ns(chains)?;
        }
        for t in &mut templates {
            t.chains = (0..chains)
                .map(|_| b.f(4).map(|d| d as u8))
                .collect::<Option<_>>()?;
        }
    }
    if b.f(1)? == 1 {
        for _ in 0..=layer.0 {
            b.f(32)?;
        }
    }
    let mask = if active == 1 {
        b.f(targets as usize)?
    } else {
        (0..targets).fold(0, |m, i| m | 1 << i)
    };
    let mut frame = templates.get(((id + 64 - offset) % 64) as usize)?.clone();
    if custom_dtis == 1 {
        frame.dtis = (0..targets).map(|_| b.f(2)).collect::<Option<_>>()?;
    }
    if custom_diffs == 1 {
        frame.diffs.clear();
        loop {
            let size = b.f(2)? as usize;
            if size == 0 {
                break;
            }
            frame.diffs.push(b.f(4 * size)? as u16 + 1);
        }
        if frame.diffs.len() > 8 {
            return None;
        }
    }
    if custom_chains == 1 {
        frame.chains = (0..chains)
            .map(|_| b.f(8).map(|d| d as u8))
            .collect::<Option<_>>()?;
    }
    Some((templates, frame, mask))
}

/// Our frame in the shape of the shadow.
fn shape(frame: &FrameDependencies, structure: &TemplateStructure) -> NaiveFrame {
    let targets = usize::from(structure.decode_target_count());
    NaiveFrame {
        layer: (frame.spatial_id, frame.temporal_id),
        dtis: (0..targets).map(|i| frame.dtis.get(i) as u32).collect(),
        diffs: frame.frame_diffs.as_slice().to_vec(),
        chains: frame.chain_diffs[..usize::from(structure.chain_count())].to_vec(),
    }
}

fn compare_with_shadow(bytes: &[u8]) {
    let mut reader = DescriptorReader::new();
    let ours = reader.read(bytes).ok().map(|read| {
        let structure = reader.structure().expect("kept").clone();
        let templates: Vec<_> = structure
            .templates()
            .iter()
            .map(|t| shape(t, &structure))
            .collect();
        (
            templates,
            shape(&read.frame, &structure),
            read.active_decode_targets.expect("with a structure"),
        )
    });
    assert_eq!(ours, naive_key(bytes), "{bytes:02x?}");
}

#[test]
fn l1t3_reads_as_the_specification_tells() {
    let structure = l1t3(0);
    let mut out = [0; 256];
    let key = DependencyDescriptor {
        has_structure: true,
        ..descriptor(&structure, 0, 1)
    };
    let len = key.write(&structure, &mut out).expect("room");
    compare_with_shadow(&out[..len]);
    let mut reader = DescriptorReader::new();
    let read = reader.read(&out[..len]).expect("own descriptor");
    assert_eq!(
        read,
        DependencyDescriptor {
            active_decode_targets: Some(0b111),
            ..key
        }
    );
    let kept = reader.structure().expect("kept");
    assert_eq!(kept, &structure);
    assert_eq!(
        [0, 1, 2].map(|t| kept.decode_target_layer(t)),
        [(0, 0), (0, 1), (0, 2)].map(Some)
    );
    assert_eq!(kept.decode_target_layer(3), None);
    assert_eq!(
        (kept.decode_target_for(0, 1), kept.decode_target_for(1, 0)),
        (Some(1), None)
    );
    assert_eq!(
        (kept.protecting_chain(2), kept.protecting_chain(3)),
        (Some(0), None)
    );
    assert_eq!(
        (kept.resolution(0), kept.resolution(1)),
        (Some((1280, 720)), None)
    );
    assert_eq!((kept.max_spatial_id(), kept.max_temporal_id()), (0, 2));

    // A later frame takes three bytes.
    let later = descriptor(&structure, 3, 2);
    assert_eq!(later.write(&structure, &mut out), Ok(MANDATORY_LEN));
    assert_eq!(reader.read(&out[..MANDATORY_LEN]), Ok(later));
    assert_eq!(later.frame.dtis.present(), 0b100);
}

#[test]
fn a_frame_needs_a_structure_that_has_its_template() {
    let structure = l1t3(60);
    let mut out = [0; 256];
    let mut reader = DescriptorReader::new();
    let before = ParseError::Value("descriptor before any structure");
    assert_eq!(reader.read(&[0x80, 0, 1]), Err(before));
    let key = DependencyDescriptor {
        has_structure: true,
        ..descriptor(&structure, 4, 1)
    };
    let len = key.write(&structure, &mut out).expect("room");
    assert_eq!(out[0] & 0x3f, 0, "ids wrap at 64");
    reader.read(&out[..len]).expect("own descriptor");
    assert_eq!(
        reader.read(&[0x80 | 1, 0, 1]),
        Err(ParseError::Value("descriptor template id"))
    );
    assert_eq!(reader.read(&[0x80, 0]), Err(ParseError::Truncated));

    // A structure whose frame is broken is not kept.
    let other = l1t3(0);
    let key = DependencyDescriptor {
        has_structure: true,
        ..descriptor(&other, 0, 2)
    };
    let len = key.write(&other, &mut out).expect("room");
    assert!(set_template_id(&mut out, 9));
    assert_eq!(
        reader.read(&out[..len]),
        Err(ParseError::Value("descriptor template id"))
    );
    assert_eq!(reader.structure(), Some(&structure));
}

#[test]
fn in_place_changes_touch_their_bits_only() {
    let mut bytes = [0b1100_0101, 1, 2, 0xff];
    assert!(set_frame_number(&mut bytes, 0xabcd) && set_template_id(&mut bytes, 9));
    assert_eq!(bytes, [0b1100_1001, 0xab, 0xcd, 0xff]);
    assert!(set_frame_edges(&mut bytes, false, true));
    assert_eq!(bytes[0], 0b0100_1001);
    assert!(
        !set_frame_number(&mut [0; 2], 1)
            && !set_template_id(&mut [], 1)
            && !set_frame_edges(&mut [], true, true)
    );
}

#[test]
fn what_the_wire_cannot_hold_is_refused() {
    let make = |offset, targets, chains, protected: &[u8], templates: &[FrameDependencies]| {
        TemplateStructure::new(offset, targets, chains, protected, templates, None).map(drop)
    };
    let base = template((0, 0), "S", &[], &[]);
    let bad = |field| Err(WriteError::Unrepresentable(field));
    assert_eq!(make(64, 1, 0, &[], &[base]), bad("template id offset"));
    assert_eq!(make(0, 33, 0, &[], &[base]), bad("decode target count"));
    assert_eq!(make(0, 1, 1, &[], &[base]), bad("chains"));
    assert_eq!(make(0, 1, 1, &[1], &[base]), bad("chains"));
    assert_eq!(make(0, 1, 0, &[], &[]), bad("template"));
    assert_eq!(
        make(0, 1, 0, &[], &[template((0, 1), "S", &[], &[])]),
        bad("template order")
    );
    assert_eq!(
        make(0, 1, 0, &[], &[base, template((1, 1), "S", &[], &[])]),
        bad("template order")
    );
    assert_eq!(
        make(0, 1, 0, &[], &[template((0, 0), "SS", &[], &[])]),
        bad("template")
    );
    assert_eq!(
        make(0, 1, 0, &[], &[template((0, 0), "S", &[17], &[])]),
        bad("template")
    );
    assert_eq!(
        make(0, 1, 0, &[], &[template((0, 0), "S", &[], &[1])]),
        bad("template")
    );
    assert_eq!(make(0, 1, 0, &[], &[base; 65]), bad("template order"));
    assert_eq!(make(0, 1, 0, &[], &[base; 64]), Ok(()));

    let structure = l1t3(0);
    let frame = descriptor(&structure, 0, 0);
    let mut out = [0; 256];
    let wrong = DependencyDescriptor {
        active_decode_targets: Some(0b1000),
        ..frame
    };
    assert_eq!(
        wrong.write(&structure, &mut out),
        bad("decode targets or chains").map(|()| 0)
    );
    let mut wrong = frame;
    wrong.frame.temporal_id = 1;
    assert_eq!(
        wrong.write(&structure, &mut out),
        bad("frame layer").map(|()| 0)
    );
    assert_eq!(
        frame.write(&structure, &mut out[..2]),
        Err(WriteError::NoRoom)
    );
}

#[test]
fn endless_lists_on_the_wire_are_refused() {
    // 65 templates of one layer, then 4 spatial layers too many.
    let mut endless = vec![0x80, 0, 0, 0b1000_0000, 0, 0];
    endless.extend([0; 60]);
    assert_eq!(
        DescriptorReader::new().read(&endless),
        Err(ParseError::Limit("templates"))
    );
    let layers = [0x80, 0, 0, 0x80, 0, 0xaa, 0xaa, 0xaa, 0xaa];
    assert_eq!(
        DescriptorReader::new().read(&layers),
        Err(ParseError::Limit("template layers"))
    );
}

fn frame_dependencies(
    targets: u8,
    chains: u8,
    most: (u16, u8),
) -> impl Strategy<Value = FrameDependencies> {
    let dtis = prop::collection::vec(0u32..4, usize::from(targets));
    let diffs = prop::collection::vec(1..=most.0, 0..=MAX_FRAME_DIFFS);
    let chain_diffs = prop::collection::vec(0..=most.1, usize::from(chains));
    (dtis, diffs, chain_diffs).prop_map(|(d, diffs, chains)| {
        let mut frame = template((0, 0), "", &diffs, &chains);
        frame.dtis = d.into_iter().map(Dti::from_bits).collect();
        frame
    })
}

/// A structure, a frame of it (own values in each field where the flag says so), and an active mask.
fn arbitrary_pair() -> impl Strategy<Value = (TemplateStructure, DependencyDescriptor)> {
    (1u8..=32, any::<u8>()).prop_flat_map(|(targets, chains)| {
        let chains = chains % (targets + 1);
        let own = frame_dependencies(targets, chains, (4096, 255));
        let templates = prop::collection::vec(
            (0u32..3, frame_dependencies(targets, chains, (16, 15))),
            1..=64,
        );
        let protected = prop::collection::vec(
            0..chains.max(1),
            usize::from(if chains == 0 { 0 } else { targets }),
        );
        let sizes = prop::option::of(prop::collection::vec((1u16.., 1u16..), 4));
        let picks = (
            0u8..64,
            any::<u8>(),
            any::<[bool; 6]>(),
            any::<u16>(),
            any::<u32>(),
        );
        (templates, protected, sizes, own, picks).prop_map(
            move |(mut templates, protected, sizes, own, picks)| {
                let (offset, pick, flags, number, mask) = picks;
                let mut layer = (0u8, 0u8);
                for (index, (step, t)) in templates.iter_mut().enumerate() {
                    match step {
                        1 if index > 0 && layer.1 < 7 => layer.1 += 1,
                        2 if index > 0 && layer.0 < 3 => layer = (layer.0 + 1, 0),
                        _ => {}
                    }
                    (t.spatial_id, t.temporal_id) = layer;
                }
                let templates: Vec<_> = templates.into_iter().map(|(_, t)| t).collect();
                let sizes = sizes.map(|s| s[..=usize::from(layer.0)].to_vec());
                let structure = TemplateStructure::new(
                    offset,
                    targets,
                    chains,
                    &protected,
                    &templates,
                    sizes.as_deref(),
                )
                .expect("representable");
                let mut written = descriptor(&structure, pick % templates.len() as u8, number);
                let (frame, all) = (&mut written.frame, structure.all_decode_targets());
                if flags[0] {
                    frame.dtis = own.dtis
                }
                if flags[1] {
                    frame.frame_diffs = own.frame_diffs
                }
                if flags[2] {
                    frame.chain_diffs = own.chain_diffs
                }
                written.active_decode_targets =
                    flags[3].then_some(mask & all).or(flags[4].then_some(all));
                written.has_structure = flags[4];
                written.mandatory.start_of_frame = flags[5];
                (structure, written)
            },
        )
    })
}

proptest! {
    #[test]
    fn what_is_written_reads((structure, written) in arbitrary_pair()) {
        let mut out = [0xee; 4096];
        let mut reader = DescriptorReader { structure: (!written.has_structure).then(|| structure.clone()) };
        let len = written.write(&structure, &mut out).expect("room");
        prop_assert_eq!(reader.read(&out[..len]), Ok(written));
        prop_assert_eq!(reader.structure(), Some(&structure));
        if written.has_structure {
            compare_with_shadow(&out[..len]);
            // Truncation is seen, except where only the padding bits of the last one are lost.
            for short in (MANDATORY_LEN..len - 1).rev().step_by(7).take(20) {
                prop_assert!(DescriptorReader::new().read(&out[..short]).is_err());
            }
        }
        prop_assert_eq!(written.write(&structure, &mut out[..len - 1]), Err(WriteError::NoRoom));
    }

    /// Shadow: read, change, write anew.
    #[test]
    fn active_decode_targets_are_changed_and_nothing_else((structure, written) in arbitrary_pair(), mask: u32) {
        let mut before = [0xee; 4096];
        let len = written.write(&structure, &mut before).expect("room");
        let (count, mask) = (structure.decode_target_count(), mask & structure.all_decode_targets());
        let mut out = [0xee; 4100];
        let changed = write_active_decode_targets(&before[..len], count, mask, &mut out).expect("room");
        prop_assert!(changed <= len + 6);
        let mut reader = DescriptorReader { structure: (!written.has_structure).then(|| structure.clone()) };
        let wanted = DependencyDescriptor { active_decode_targets: Some(mask), ..written };
        prop_assert_eq!(reader.read(&out[..changed]), Ok(wanted));
        prop_assert_eq!(reader.structure(), Some(&structure));
        prop_assert_eq!(
            write_active_decode_targets(&before[..len], count, mask, &mut out[..changed - 1]),
            Err(ParseError::Length)
        );
    }

    #[test]
    fn any_bytes_read_as_the_shadow_reads_them(
        head in any::<[u8; 3]>(), flags in 0x80u8..=0xff, low in prop::bool::ANY, tail in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut bytes = head.to_vec();
        bytes.push(flags);
        bytes.extend(tail);
        if low {
            // Few decode targets and a matching id make sound structures likely.
            bytes[0] &= 0xc1;
            bytes[3] &= 0xf8;
            if let Some(b) = bytes.get_mut(4) { *b &= 0x07 }
        }
        compare_with_shadow(&bytes);
    }
}
