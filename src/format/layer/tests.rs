use super::*;
use proptest::prelude::*;

fn sample() -> (Vec<u8>, Footer) {
    sample_of(VERSION)
}

fn sample_of(version: u16) -> (Vec<u8>, Footer) {
    let base = Base { id: BlockId::from_digest([7; 32]), depth: 3, at: -5, from: 6, len: 7 };
    let row = |offset, stored_len, raw_len, crc, codec| {
        let (filter, base) = (Filter::None, None);
        BlockRow { offset, stored_len, raw_len, crc, codec, filter, base }
    };
    let mut blocks = [row(32, 10, 24, 1, Codec::Zstd), row(42, 7, 7, 2, Codec::Raw)];
    if version != VERSION_WITHOUT_BASES {
        blocks[0].base = Some(base);
        blocks[0].filter = Filter::Difference(Width::Two);
    }
    let mut objects: Vec<ObjectRow> = (0..9u32)
        .map(|i| ObjectRow {
            id: ObjectId::from_digest(sha256(&[&i.to_le_bytes()])),
            place: Place { block: 0, offset: i * 3, len: 3, kind: ObjectKind::Chunk },
        })
        .collect();
    objects[8].place = Place { block: 1, offset: 0, len: 7, kind: ObjectKind::Commit };
    encode_tables(version, [9; 16], &blocks, &mut objects, 49)
}

#[test]
fn golden_footer() {
    let (tables, footer) = sample();
    let bytes = footer.encode();
    assert_eq!((bytes.len(), tables.len() as u64), (FOOTER_LEN, footer.tables_len()));
    let (id, decoded) = Footer::decode(&bytes).unwrap();
    assert_eq!(decoded, footer);
    assert_eq!(id.short(), "6d492aa51db7");
    let (_, first) = sample_of(VERSION_WITHOUT_BASES);
    assert_eq!(Footer::decode(&first.encode()).unwrap().0.short(), "38aa8bbad5d8");
}

#[test]
fn what_a_block_is_and_needs_is_read_back() {
    let (bytes, footer) = sample();
    let tables = Tables::new(&footer, &bytes).unwrap();
    let block = tables.block(0).unwrap();
    assert_eq!((block.filter, block.depth()), (Filter::Difference(Width::Two), 3));
    assert_eq!(block.base, Some(Base { id: BlockId::from_digest([7; 32]), depth: 3, at: -5, from: 6, len: 7 }));
    assert_eq!(tables.block(1).unwrap().base, None);
    let ids: Vec<ObjectId> = (0..8u32).map(|i| ObjectId::from_digest(sha256(&[&i.to_le_bytes()]))).collect();
    let row = tables.find(&block_id(ids.iter()).into()).unwrap().unwrap();
    assert_eq!(tables.object(row).unwrap().place, Place { block: 0, offset: 0, len: 24, kind: ObjectKind::Block });
}

#[test]
fn every_object_is_found_and_others_are_not() {
    let (bytes, footer) = sample();
    let tables = Tables::new(&footer, &bytes).unwrap();
    tables.verify().unwrap();
    for i in 0..9u32 {
        let id = ObjectId::from_digest(sha256(&[&i.to_le_bytes()]));
        let row = tables.find(&id).unwrap().unwrap();
        assert_eq!(tables.object(row).unwrap().id, id);
    }
    assert_eq!(tables.find(&ObjectId::from_digest([3; 32])).unwrap(), None);
    assert_eq!(tables.block(1).unwrap().stored_len, 7);
    assert!(tables.block(2).is_err());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (bytes, footer) = sample();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(Tables::new(&footer, &damaged).unwrap().verify().is_err(), "byte {at}");
    }
    let encoded = footer.encode();
    for at in 0..encoded.len() {
        let mut damaged = encoded.clone();
        damaged[at] ^= 4;
        assert!(Footer::decode(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn headers_of_others_and_of_the_future_are_told_apart() {
    let header = encode_header(VERSION, &[5; 16]);
    assert_eq!(decode_header(&header).unwrap(), (VERSION, [5; 16]));
    let changed = |at: usize, to: u8| {
        let mut header = header;
        header[at] = to;
        decode_header(&header).unwrap_err()
    };
    assert!(matches!(changed(0, b'X'), FormatError::Foreign(_)));
    assert!(matches!(changed(8, 3), FormatError::Future { found: 3, .. }));
    assert!(matches!(changed(12, 1), FormatError::Feature { .. }));
    assert!(decode_header(b"").is_err());
}

proptest! {
    #[test]
    fn tables_of_anything_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 619..=619), id: [u8; 32]) {
        let (_, footer) = sample();
        prop_assert_eq!(footer.tables_len(), 619);
        let tables = Tables::new(&footer, &bytes).unwrap();
        let _ = tables.find(&ObjectId::from_digest(id));
        let _ = tables.block(0);
        let _ = tables.object(3);
        let _ = tables.verify();
    }
}
