//! How many instructions the parts take, by valgrind, compared with what they took when `instructions.txt` was written.
//!
//! `cargo bench --bench instructions` compares, and fails if a throughput takes 1.5 times as many or a single operation twice as many;
//! with `-- --write` the file is written anew. Counts are the same in every run on every machine of a kind, where times are not.
//! Valgrind shows the program a processor without SHA instructions, so hashing counts are of the portable code.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark that cannot go on fails")]
#![allow(missing_docs, reason = "nothing here is used from elsewhere")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use digstore::base::clock;
use digstore::base::meter::{Meter, Stage};
use digstore::format::journal::Op;
use digstore::format::object::{decode_tree, encode_tree};
use digstore::model::id::{ChunkId, ObjectId, ObjectKind};
use digstore::model::tree::{Content, Entry, Meta, Node, Tree};
use digstore::repo::{Repository, Settings};
use digstore::store::journal::{Durability, Journal};
use digstore::transform::chunker::{ChunkParams, Chunker};
use digstore::transform::compress::{DEFAULT_LEVEL, Opposite, compress, decompress};
use digstore::transform::hash::chunk_id;
use support::{cut, noise, text};

/// What is allowed against the written count: for work on many bytes, and for one small operation.
const THROUGHPUT: f64 = 1.5;
const MICRO: f64 = 2.0;
/// The setup cancels out between so many rounds and three times as many.
const ROUNDS: u64 = 2;
const FILE: &str = "benches/instructions.txt";
const BUFFER_LEN: usize = 1 << 20;
const BLOCK_LEN: usize = 512 << 10;
const ENTRIES: usize = 1000;

/// Prepares something and gives what is to be counted.
type Make = fn() -> Box<dyn FnMut()>;

const PARTS: [(&str, f64, Make); 14] = [
    ("cut_1mib_text", THROUGHPUT, || cutting(text(1, BUFFER_LEN))),
    ("cut_1mib_noise", THROUGHPUT, || cutting(noise(1, BUFFER_LEN))),
    ("hash_64kib", THROUGHPUT, || {
        let bytes = noise(2, 64 << 10);
        Box::new(move || assert_ne!(chunk_id(black_box(&bytes)), ChunkId::from_digest([0; 32])))
    }),
    ("compress_512kib_text", THROUGHPUT, || compressing(text(3, BLOCK_LEN), None)),
    ("compress_512kib_noise", THROUGHPUT, || compressing(noise(3, BLOCK_LEN), None)),
    ("compress_512kib_delta", THROUGHPUT, || {
        let old = text(4, BLOCK_LEN);
        compressing([&old[..BLOCK_LEN / 2], b"changed", &old[BLOCK_LEN / 2..]].concat(), Some(old))
    }),
    ("decompress_512kib_text", THROUGHPUT, || {
        let plain = text(5, BLOCK_LEN);
        let packed = compress(&plain, None, DEFAULT_LEVEL).unwrap();
        Box::new(move || {
            let found = decompress(packed.codec, packed.filter, &packed.bytes, plain.len(), Opposite::NONE).unwrap();
            assert_eq!(found.len(), plain.len());
        })
    }),
    ("tree_encode_1000", THROUGHPUT, || {
        let tree = tree();
        Box::new(move || assert!(encode_tree(black_box(&tree)).1.len() > ENTRIES))
    }),
    ("tree_decode_1000", THROUGHPUT, || {
        let bytes = encode_tree(&tree()).1;
        Box::new(move || assert_eq!(decode_tree(black_box(&bytes)).unwrap().entries().len(), ENTRIES))
    }),
    ("journal_put", MICRO, || {
        let journal = journal();
        let mut number = 0u64;
        Box::new(move || {
            number += 1;
            journal.commit(vec![Op::Put(number.to_le_bytes().to_vec(), vec![7; 100])]).unwrap();
        })
    }),
    ("journal_get", MICRO, || {
        let journal = journal();
        let ops = (0..1000u64).map(|number| Op::Put(number.to_le_bytes().to_vec(), vec![7; 100])).collect::<Vec<_>>();
        journal.commit(ops).unwrap();
        Box::new(move || assert!(journal.read().get(&500u64.to_le_bytes()).unwrap().is_some()))
    }),
    ("lookup_hit_1000", MICRO, || looking_up(true)),
    ("lookup_miss_1000", MICRO, || looking_up(false)),
    ("meter", MICRO, || {
        let meter = Meter::default();
        Box::new(move || drop(meter.time(Stage::Read)))
    }),
];

fn cutting(bytes: Vec<u8>) -> Box<dyn FnMut()> {
    let chunker = Chunker::new(ChunkParams::default());
    Box::new(move || assert!(cut(&chunker, black_box(&bytes)) > 4))
}

fn compressing(plain: Vec<u8>, base: Option<Vec<u8>>) -> Box<dyn FnMut()> {
    Box::new(move || {
        let base = base.as_deref().map(Opposite::whole);
        assert!(compress(black_box(&plain), base, DEFAULT_LEVEL).unwrap().bytes.len() < plain.len());
    })
}

fn tree() -> Tree {
    let entry = |number: usize| Entry {
        name: format!("file-{number:05}.c").into_bytes(),
        meta: Meta { mode: 0o644, mtime_ns: 1_700_000_000_000_000_000 + number as i64 },
        node: Node::File { len: 1000, content: Content::Chunk(chunk_id(&number.to_le_bytes())) },
    };
    Tree::from_sorted((0..ENTRIES).map(entry).collect()).unwrap()
}

fn journal() -> Journal {
    Journal::open(None, [1; 16], Durability::Memory).unwrap()
}

fn looking_up(hit: bool) -> Box<dyn FnMut()> {
    let folder = tempfile::tempdir().unwrap();
    let work = digstore::base::disk::open_root(folder.path()).unwrap();
    let repo = Repository::in_memory(work, Settings { cpu_threads: 1, io_threads: 1, ..Settings::default() }).unwrap();
    let mut layer = repo.new_layer().unwrap();
    let bytes = |number: usize| number.to_le_bytes();
    for number in 0..ENTRIES {
        layer.add(chunk_id(&bytes(number)).into(), ObjectKind::Chunk, &bytes(number), None).unwrap();
    }
    let lock = repo.lock("bench").unwrap();
    repo.commit(&lock, &[layer.seal().unwrap()], Vec::new()).unwrap();
    drop(lock);
    let objects = repo.objects();
    // All of them: where one lies among the others is a matter of chance.
    let ids: Vec<ObjectId> =
        (0..ENTRIES).map(|number| chunk_id(&bytes(if hit { number } else { ENTRIES + number })).into()).collect();
    Box::new(move || ids.iter().for_each(|id| assert_eq!(objects.contains(black_box(id)).unwrap(), hit)))
}

/// Runs one part, as valgrind is told to.
fn run(name: &str, rounds: u64) {
    let (_, _, make) = PARTS.iter().find(|(part, ..)| *part == name).unwrap();
    let mut part = make();
    (0..rounds).for_each(|_| part());
}

/// The instructions of one round.
fn count(name: &str) -> u64 {
    let total = |rounds: u64| {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
        let done = command.arg("--part").arg(name).arg(rounds.to_string()).output();
        let done = done.expect("valgrind is needed: apt-get install valgrind");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{name}: {said}");
        let found = said.lines().find_map(|line| line.split("Collected :").nth(1));
        found.unwrap_or_else(|| panic!("valgrind said nothing: {said}")).trim().parse::<u64>().unwrap()
    };
    total(3 * ROUNDS).saturating_sub(total(ROUNDS)) / (2 * ROUNDS)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--part") {
        run(&args[at + 1], args[at + 2].parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--test" || arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let known: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, count)| (name, count.trim().parse().unwrap()))
        .collect();
    let (mut written, mut worse) = (String::new(), 0);
    let started = clock::now();
    for (name, allowed, _) in &PARTS {
        let found = count(name);
        let _ = writeln!(written, "{name} {found}");
        let share = known.get(name).map(|known| found as f64 / *known as f64);
        let verdict = match share {
            None => "not known yet: write it with -- --write",
            Some(share) if share > *allowed => "WORSE than allowed",
            Some(share) if share < 1.0 / allowed => "much better: write it with -- --write",
            Some(_) => "as before",
        };
        worse += usize::from(share.is_none_or(|share| share > *allowed));
        println!("{name:<24} {found:>12}  {:>6.2} of at most {allowed:.1}  {verdict}", share.unwrap_or(0.0));
    }
    println!("{} s", (clock::now() - started) / clock::NANOS_PER_SEC);
    if args.iter().any(|arg| arg == "--write") {
        std::fs::write(file, written).unwrap();
        return ExitCode::SUCCESS;
    }
    if worse > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
