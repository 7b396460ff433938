//! Filters: the same bytes in an order that shrinks better. For arrays of numbers.
//!
//! Grouping puts the first bytes of all elements together, then all second bytes and so on: the bytes that hold sign and
//! exponent differ little from element to element, those of the fraction are noise, and apart from each other zstd makes
//! something of the former. A difference takes each element minus the one at the same place of an older version first.

use std::fmt;

/// What was done to a block before it was compressed. The numbers are part of the layer format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filter {
    /// Nothing.
    #[default]
    None,
    /// Bytes of elements of so many bytes, grouped by significance.
    Group(Width),
    /// Elements minus those of the base, then grouped.
    Difference(Width),
}

/// Bytes of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    Two,
    /// 32 bits.
    Four,
    /// 64 bits.
    Eight,
}

impl Width {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Two, Self::Four, Self::Eight];

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Group(width) => write!(f, "group{}", width.bytes()),
            Self::Difference(width) => write!(f, "difference{}", width.bytes()),
        }
    }
}

impl Filter {
    /// Does undoing it need the base?
    pub fn needs_base(self) -> bool {
        matches!(self, Self::Difference(_))
    }

    /// Of so many filtered bytes, how many belong to one significance; the last of them come with what is left over.
    pub fn plane_len(self, len: usize) -> usize {
        match self {
            Self::None => len,
            // Rounded up, so that there are no more planes than bytes in an element.
            Self::Group(width) | Self::Difference(width) => len.div_ceil(width.bytes()),
        }
    }

    /// Applies it. The length stays the same.
    pub fn apply(self, plain: &[u8], base: &[u8]) -> Vec<u8> {
        match self {
            Self::None => plain.to_vec(),
            Self::Group(Width::Two) => group::<2>(plain),
            Self::Group(Width::Four) => group::<4>(plain),
            Self::Group(Width::Eight) => group::<8>(plain),
            Self::Difference(Width::Two) => group::<2>(&shifted::<2>(plain, base, |a, b| {
                u16::from_le_bytes(a).wrapping_sub(u16::from_le_bytes(b)).to_le_bytes()
            })),
            Self::Difference(Width::Four) => group::<4>(&shifted::<4>(plain, base, |a, b| {
                u32::from_le_bytes(a).wrapping_sub(u32::from_le_bytes(b)).to_le_bytes()
            })),
            Self::Difference(Width::Eight) => group::<8>(&shifted::<8>(plain, base, |a, b| {
                u64::from_le_bytes(a).wrapping_sub(u64::from_le_bytes(b)).to_le_bytes()
            })),
        }
    }

    /// Gives back what was there before.
    pub fn undo(self, filtered: Vec<u8>, base: &[u8]) -> Vec<u8> {
        match self {
            Self::None => filtered,
            Self::Group(Width::Two) => ungroup::<2>(&filtered),
            Self::Group(Width::Four) => ungroup::<4>(&filtered),
            Self::Group(Width::Eight) => ungroup::<8>(&filtered),
            Self::Difference(Width::Two) => shifted::<2>(&ungroup::<2>(&filtered), base, |a, b| {
                u16::from_le_bytes(a).wrapping_add(u16::from_le_bytes(b)).to_le_bytes()
            }),
            Self::Difference(Width::Four) => shifted::<4>(&ungroup::<4>(&filtered), base, |a, b| {
                u32::from_le_bytes(a).wrapping_add(u32::from_le_bytes(b)).to_le_bytes()
            }),
            Self::Difference(Width::Eight) => shifted::<8>(&ungroup::<8>(&filtered), base, |a, b| {
                u64::from_le_bytes(a).wrapping_add(u64::from_le_bytes(b)).to_le_bytes()
            }),
        }
    }
}

/// The bytes of each plane one after the other; what is left of the last element comes last.
fn group<const N: usize>(plain: &[u8]) -> Vec<u8> {
    let (elements, rest) = plain.as_chunks::<N>();
    let mut out = Vec::with_capacity(plain.len());
    for plane in 0..N {
        out.extend(elements.iter().map(|element| element[plane]));
    }
    out.extend_from_slice(rest);
    out
}

fn ungroup<const N: usize>(grouped: &[u8]) -> Vec<u8> {
    let count = grouped.len() / N;
    let mut out = vec![0; grouped.len()];
    let (elements, rest) = out.as_chunks_mut::<N>();
    for plane in 0..N {
        let bytes = grouped.get(plane * count..(plane + 1) * count).unwrap_or_default();
        elements.iter_mut().zip(bytes).for_each(|(element, byte)| element[plane] = *byte);
    }
    rest.copy_from_slice(grouped.get(count * N..).unwrap_or_default());
    out
}

/// Each element with the one at the same place in `base`, or with zero beyond its end.
fn shifted<const N: usize>(plain: &[u8], base: &[u8], with: impl Fn([u8; N], [u8; N]) -> [u8; N]) -> Vec<u8> {
    let (elements, rest) = plain.as_chunks::<N>();
    let (others, _) = base.as_chunks::<N>();
    let mut out = Vec::with_capacity(plain.len());
    for (element, other) in elements.iter().zip(others.iter().chain(std::iter::repeat(&[0; N]))) {
        out.extend_from_slice(&with(*element, *other));
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Filter; 7] = [
        Filter::None,
        Filter::Group(Width::Two),
        Filter::Group(Width::Four),
        Filter::Group(Width::Eight),
        Filter::Difference(Width::Two),
        Filter::Difference(Width::Four),
        Filter::Difference(Width::Eight),
    ];

    #[test]
    fn golden() {
        let plain = [1u8, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(Filter::Group(Width::Two).apply(&plain, &[]), [1, 3, 5, 7, 2, 4, 6, 8, 9]);
        assert_eq!(Filter::Group(Width::Four).apply(&plain, &[]), [1, 5, 2, 6, 3, 7, 4, 8, 9]);
        let base = [1u8, 1, 4, 4];
        assert_eq!(Filter::Difference(Width::Two).apply(&plain, &base), [0, 255, 5, 7, 1, 255, 6, 8, 9]);
    }

    proptest! {
        #[test]
        fn every_filter_is_undone(plain: Vec<u8>, base: Vec<u8>) {
            for filter in ALL {
                let filtered = filter.apply(&plain, &base);
                prop_assert_eq!(filtered.len(), plain.len());
                prop_assert_eq!(&filter.undo(filtered, &base), &plain);
            }
        }
    }
}
