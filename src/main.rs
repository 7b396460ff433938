use digstore::base::monitor::Silent;
use digstore::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (store, work) = (std::path::Path::new(&a[1]), std::path::Path::new(&a[2]));
    let s = repo::Settings::default();
    let parent = base::disk::open_root(store.parent().unwrap()).unwrap();
    repo::init::create(parent.as_ref(), store.file_name().unwrap(), s.chunking).unwrap();
    let t = std::time::Instant::now();
    let r = repo::open_at(store, work, s).unwrap();
    eprintln!("open {:?}", t.elapsed());
    let o = ops::add::add(
        &r,
        &ops::add::Options { paths: vec![model::path::RepoPath::root()], ..Default::default() },
        &Silent,
    )
    .unwrap();
    eprintln!("add {:?} {:?} added {}", t.elapsed(), o.ingest, o.added.len());
    let c = ops::commit::commit(
        &r,
        &ops::commit::Options {
            message: "x".into(),
            author: "a".into(),
            time_ns: 1,
            utc_offset_minutes: 0,
            all: false,
            allow_empty: false,
        },
        &Silent,
    );
    eprintln!("commit {:?} {:?}", t.elapsed(), c);
}
