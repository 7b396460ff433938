//! Where the arrays of numbers lie in a file that says so: safetensors and npy.
//!
//! Nothing is inserted into an array of weights, but all of it changes a little, so it is cut at fixed places from its
//! start on: then the pieces of two versions lie opposite to each other, and an element opposite to its older self.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

/// Longer headers are not looked at; those of the largest public models have a few hundred kilobytes.
const MAX_HEADER_LEN: u64 = 4 << 20;
const NPY_MAGIC: &[u8; 6] = b"\x93NUMPY";
/// What has to be there to see that a file is none of these.
const SHORTEST_HEAD: usize = 12;

/// One entry of a safetensors header, of which only the place counts.
#[derive(Deserialize)]
struct Tensor {
    data_offsets: (u64, u64),
}

/// The places of the arrays, in order and apart from each other, as the start of a file says them; `None` if more of it is
/// needed. `is_all`: there are no more bytes.
pub fn read_head(head: &[u8], is_all: bool) -> Option<Vec<Range<u64>>> {
    let none = Some(Vec::new());
    if head.len() < SHORTEST_HEAD {
        return none.filter(|_| is_all);
    }
    if head.starts_with(NPY_MAGIC) {
        return Some(npy_data(head).into_iter().collect());
    }
    let Some((len, rest)) = head.split_first_chunk::<8>() else { return none };
    let len = u64::from_le_bytes(*len);
    if rest.first() != Some(&b'{') || len > MAX_HEADER_LEN {
        return none;
    }
    match rest.get(..len as usize) {
        Some(header) => Some(safetensors_data(header).unwrap_or_default()),
        None => none.filter(|_| is_all),
    }
}

/// The data of an npy file: all behind its header.
fn npy_data(head: &[u8]) -> Option<Range<u64>> {
    let major = *head.get(6)?;
    let (start, len) = match (major, head.get(8..)?) {
        (1, rest) => (10, u64::from(u16::from_le_bytes(*rest.first_chunk()?))),
        (2 | 3, rest) => (12, u64::from(u32::from_le_bytes(*rest.first_chunk()?))),
        _ => return None,
    };
    Some(start + len..u64::MAX)
}

fn safetensors_data(header: &[u8]) -> Option<Vec<Range<u64>>> {
    let data = 8 + header.len() as u64;
    let entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let mut arrays = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        if name != "__metadata__" {
            let Tensor { data_offsets: (start, end) } = serde_json::from_value(entry).ok()?;
            arrays.push(data.checked_add(start)?..data.checked_add(end)?);
        }
    }
    arrays.sort_unstable_by_key(|array| (array.start, array.end));
    let is_sound = arrays.iter().all(|array| array.start <= array.end)
        && arrays.iter().zip(arrays.iter().skip(1)).all(|(one, next)| one.end <= next.start);
    is_sound.then_some(arrays)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn safetensors(header: &str) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
    }

    #[test]
    fn arrays_are_found() {
        let header = r#"{"__metadata__":{"a":"b"},"y":{"dtype":"F16","shape":[4],"data_offsets":[8,16]},"x":{"data_offsets":[0,8]}}"#;
        let file = safetensors(header);
        let at = file.len() as u64;
        assert_eq!(read_head(&file, false), Some(vec![at..at + 8, at + 8..at + 16]));
        assert_eq!(read_head(&file[..20], false), None);
        assert_eq!(read_head(&file[..20], true), Some(vec![]));
        let npy = [b"\x93NUMPY\x01\x00".as_slice(), &118u16.to_le_bytes(), &[b' '; 118]].concat();
        let Some(arrays) = read_head(&npy, false) else { panic!("it is all there") };
        assert_eq!((arrays.len(), &arrays[0]), (1, &(128..u64::MAX)));
    }

    #[test]
    fn other_files_and_broken_headers_have_none() {
        let overlap = safetensors(r#"{"x":{"data_offsets":[0,8]},"y":{"data_offsets":[4,16]}}"#);
        let backwards = safetensors(r#"{"x":{"data_offsets":[8,0]}}"#);
        let far = safetensors(r#"{"x":{"data_offsets":[0,18446744073709551615]}}"#);
        let huge = [&u64::MAX.to_le_bytes()[..], b"{        "].concat();
        for file in [overlap, backwards, far, huge, safetensors("{not json at all"), b"any other text".to_vec()] {
            assert_eq!(read_head(&file, false), Some(vec![]), "{:?}", String::from_utf8_lossy(&file));
        }
        assert_eq!(read_head(b"short", false), None);
        assert_eq!(read_head(b"short", true), Some(vec![]));
    }

    proptest! {
        #[test]
        fn any_head_is_read_without_panic(bytes: Vec<u8>, is_all: bool) {
            let _ = read_head(&bytes, is_all);
            let _ = read_head(&safetensors(&String::from_utf8_lossy(&bytes)), is_all);
        }
    }
}
