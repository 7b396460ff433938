//! Bounded little-endian decoding and the matching encoding helpers.
//!
//! Every decoder in this crate reads through [`ByteReader`], which never indexes past its input and never lets a
//! length from the input decide an allocation before that length is compared with what is really there.

use thiserror::Error;

/// Why bytes could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ended inside a value.
    #[error("{what} is cut short")]
    Truncated {
        /// The structure being read.
        what: &'static str,
    },
    /// A value is outside what the format allows.
    #[error("{what}: {why}")]
    Invalid {
        /// The structure being read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Bytes of the longest number, 64 bits in sevens.
const MAX_VARINT_LEN: usize = 10;

/// A cursor over bytes that came from disk.
#[derive(Debug, Clone)]
pub struct ByteReader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> ByteReader<'a> {
    /// Reads `bytes`; `what` names the structure in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    /// An error about the structure being read.
    pub fn invalid(&self, why: impl Into<String>) -> DecodeError {
        DecodeError::Invalid { what: self.what, why: why.into() }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(len) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(DecodeError::Truncated { what: self.what }),
        }
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            None => Err(DecodeError::Truncated { what: self.what }),
        }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little endian, two's complement.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// An unsigned LEB128 number. The shortest form is required, so that a value has one encoding.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().enumerate().take(MAX_VARINT_LEN) {
            let bits = u64::from(byte & 0x7f);
            if at + 1 == MAX_VARINT_LEN && bits > 1 {
                return Err(self.invalid("a number is too large"));
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                if byte == 0 && at > 0 {
                    return Err(self.invalid("a number is not in its shortest form"));
                }
                self.take(at + 1)?;
                return Ok(value);
            }
        }
        if self.rest.len() < MAX_VARINT_LEN {
            return Err(DecodeError::Truncated { what: self.what });
        }
        Err(self.invalid("a number is too long"))
    }

    /// A varint that must not exceed `max`.
    pub fn varint_max(&mut self, max: u64) -> Result<u64, DecodeError> {
        let value = self.varint()?;
        if value > max {
            return Err(self.invalid(format!("the number {value} is above the limit of {max}")));
        }
        Ok(value)
    }

    /// A varint length, then that many bytes; at most `max_len`.
    pub fn bytes(&mut self, max_len: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.varint_max(max_len as u64)?;
        self.take(len as usize)
    }

    /// Text of at most `max_len` bytes, as written by [`put_bytes`].
    pub fn text(&mut self, max_len: usize) -> Result<String, DecodeError> {
        let bytes = self.bytes(max_len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.invalid("text is not UTF-8"))
    }

    /// Checks that everything was read.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.invalid("there are bytes after the end")) }
    }
}

/// Appends an unsigned LEB128 number in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = ByteReader::new("test", &out);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let mut reader = ByteReader::new("test", &bytes);
            while reader.varint().is_ok() {}
            let _ = reader.bytes(1 << 20);
        }
    }

    #[test]
    fn long_forms_and_overflow_are_refused() {
        let why = |bytes: &[u8]| ByteReader::new("test", bytes).varint().unwrap_err().to_string();
        assert_eq!(why(&[0x80, 0x00]), "test: a number is not in its shortest form");
        assert_eq!(why(&[0xff; 10]), "test: a number is too large");
        assert_eq!(why(&[0x80; 11]), "test: a number is too long");
        for cut in [&[][..], &[0x80], &[0x80; 9]] {
            assert_eq!(why(cut), "test is cut short");
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_before_allocation() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX >> 1);
        assert!(ByteReader::new("test", &out).bytes(usize::MAX).is_err());
    }
}
