//! `format`: what a repository is.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{FormatError, RepoId, layer};
use crate::base::bytes::DecodeError;
use crate::transform::chunker::ChunkParams;

/// The one cutting algorithm.
const ALGORITHM: &str = "fastcdc-2020";

/// The newest version of a repository. It is that of the layers that are written into it.
pub const VERSION: u16 = layer::VERSION;

/// What is fixed when a repository is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What may be in it. A repository keeps its version until it is migrated.
    pub version: u16,
    /// Random, carried by every file.
    pub id: RepoId,
    /// How files are cut.
    pub chunking: ChunkParams,
}

#[derive(Serialize, Deserialize)]
struct Text {
    version: u16,
    #[serde(default)]
    required_features: Vec<String>,
    id: String,
    chunking: Chunking,
}

#[derive(Serialize, Deserialize)]
struct Chunking {
    algorithm: String,
    #[serde(flatten)]
    params: Params,
}

/// [`ChunkParams`] without its refusal of unknown fields, which flattening cannot keep.
#[derive(Serialize, Deserialize)]
struct Params {
    min_len: u32,
    avg_len: u32,
    max_len: u32,
    whole_len: u32,
}

/// Only the version, so that a file of the future is recognised whatever else it holds.
#[derive(Deserialize)]
struct VersionOnly {
    version: u16,
}

fn invalid(why: impl ToString) -> FormatError {
    DecodeError::Invalid { what: "the file 'format'", why: why.to_string() }.into()
}

impl Manifest {
    /// That of a new repository.
    pub fn new(id: RepoId, chunking: ChunkParams) -> Self {
        Self { version: VERSION, id, chunking }
    }

    /// The file's text.
    pub fn encode(&self) -> String {
        let version = self.version;
        let ChunkParams { min_len, avg_len, max_len, whole_len } = self.chunking;
        format!(
            "# A digstore repository. Written once; do not edit.\nversion = {version}\nrequired_features = []\n\
             id = \"{}\"\n\n[chunking]\nalgorithm = \"{ALGORITHM}\"\nmin_len = {min_len}\navg_len = {avg_len}\n\
             max_len = {max_len}\nwhole_len = {whole_len}\n",
            HEXLOWER.encode(&self.id)
        )
    }

    /// Reads the file.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FormatError::Foreign("repository"))?;
        let VersionOnly { version } = toml::from_str(text).map_err(|_| FormatError::Foreign("repository"))?;
        if version == 0 || version > VERSION {
            return Err(FormatError::Future { what: "repository", found: version, known: VERSION });
        }
        let Text { required_features, id, chunking, .. } = toml::from_str(text).map_err(|e| invalid(e.message()))?;
        if let Some(feature) = required_features.into_iter().next() {
            return Err(FormatError::Feature { what: "repository", feature });
        }
        if chunking.algorithm != ALGORITHM {
            return Err(FormatError::Feature { what: "repository", feature: chunking.algorithm });
        }
        let id = HEXLOWER.decode(id.as_bytes()).ok().and_then(|id| id.try_into().ok());
        let Params { min_len, avg_len, max_len, whole_len } = chunking.params;
        let chunking = ChunkParams { min_len, avg_len, max_len, whole_len };
        chunking.check().map_err(invalid)?;
        Ok(Self { version, id: id.ok_or_else(|| invalid("the id is not 32 hex digits"))?, chunking })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_future_and_nonsense() {
        let manifest = Manifest::new([7; 16], ChunkParams::default());
        let text = manifest.encode();
        assert_eq!(Manifest::decode(text.as_bytes()).unwrap(), manifest);
        let first = Manifest { version: 1, ..manifest };
        assert_eq!(Manifest::decode(first.encode().as_bytes()).unwrap(), first);
        let decode = |from: &str, to: &str| Manifest::decode(text.replace(from, to).as_bytes()).unwrap_err();
        assert!(matches!(decode("version = 2", "version = 3\nnew = 3"), FormatError::Future { found: 3, .. }));
        assert!(matches!(decode("[]", "[\"magic\"]"), FormatError::Feature { .. }));
        assert!(matches!(decode("fastcdc-2020", "other"), FormatError::Feature { .. }));
        assert!(matches!(decode("min_len = 16384", "min_len = 1"), FormatError::Decode(_)));
        assert!(matches!(decode("0707", "07"), FormatError::Decode(_)));
        assert!(matches!(Manifest::decode(b"\xff"), Err(FormatError::Foreign(_))));
        assert!(matches!(Manifest::decode(b""), Err(FormatError::Foreign(_))));
    }
}
