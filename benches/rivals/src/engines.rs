//! The engines behind one narrow interface. Each is used as its manual says for single commits of single keys.

use std::path::Path;
use std::time::Duration;

use digstore::base::disk::open_root;
use digstore::format::journal::Op;
use digstore::store::journal::Durability;
use redb::{ReadableDatabase, ReadableTable};

use crate::{KEYS, Key, key, value};

/// Keys loaded in one batch.
const LOAD_BATCH: u64 = 10_000;

pub trait Engine: Sized {
    /// With the version, as locked.
    const NAME: &'static str;
    /// Makes a database with all keys, closed properly.
    fn load(path: &Path);
    /// Opens it so that puts are synced one by one, or in the background or never.
    fn open(path: &Path, synced: bool) -> Self;
    fn get(&self, key: &Key, see: &mut dyn FnMut(Option<&[u8]>) -> bool) -> bool;
    fn put(&self, key: &Key, value: &[u8]);
    fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8]));
}

fn batches() -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..KEYS).step_by(LOAD_BATCH as usize).map(|start| start..KEYS.min(start + LOAD_BATCH))
}

pub struct Journal(digstore::store::journal::Journal);

const REPO: [u8; 16] = [7; 16];

impl Engine for Journal {
    const NAME: &'static str = "digstore";

    fn load(path: &Path) {
        digstore::store::journal::Journal::create(open_root(path).unwrap().as_ref(), &REPO).unwrap();
        let journal = Self::open(path, false);
        for batch in batches() {
            journal.0.commit(batch.map(|n| Op::Put(key(n).to_vec(), value(n).to_vec())).collect::<Vec<_>>()).unwrap();
        }
    }

    fn open(path: &Path, synced: bool) -> Self {
        let buffered = Durability::Buffered { interval: Duration::from_millis(100), batches: 1000 };
        let durability = if synced { Durability::Strict } else { buffered };
        let journal =
            digstore::store::journal::Journal::open(Some(open_root(path).unwrap()), REPO, durability).unwrap();
        journal.refresh().unwrap();
        Self(journal)
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(Option<&[u8]>) -> bool) -> bool {
        see(self.0.read().get(key).unwrap())
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.0.commit(vec![Op::Put(key.to_vec(), value.to_vec())]).unwrap();
    }

    fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        let state = self.0.read();
        let mut scan = state.scan(b"").unwrap();
        while let Some((key, value)) = scan.next().unwrap() {
            see(key, value);
        }
    }
}

pub struct Redb {
    db: redb::Database,
    durability: redb::Durability,
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("t");

impl Engine for Redb {
    const NAME: &'static str = "redb 4.5.0";

    fn load(path: &Path) {
        let db = redb::Database::create(path.join("db")).unwrap();
        for batch in batches() {
            let write = db.begin_write().unwrap();
            {
                let mut table = write.open_table(TABLE).unwrap();
                for n in batch {
                    table.insert(&key(n)[..], &value(n)[..]).unwrap();
                }
            }
            write.commit().unwrap();
        }
    }

    fn open(path: &Path, synced: bool) -> Self {
        let durability = if synced { redb::Durability::Immediate } else { redb::Durability::None };
        Self { db: redb::Database::open(path.join("db")).unwrap(), durability }
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(Option<&[u8]>) -> bool) -> bool {
        let table = self.db.begin_read().unwrap().open_table(TABLE).unwrap();
        let found = table.get(&key[..]).unwrap();
        see(found.as_ref().map(redb::AccessGuard::value))
    }

    fn put(&self, key: &Key, value: &[u8]) {
        let mut write = self.db.begin_write().unwrap();
        write.set_durability(self.durability).unwrap();
        write.open_table(TABLE).unwrap().insert(&key[..], value).unwrap();
        write.commit().unwrap();
    }

    fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        let table = self.db.begin_read().unwrap().open_table(TABLE).unwrap();
        for pair in table.iter().unwrap() {
            let (key, value) = pair.unwrap();
            see(key.value(), value.value());
        }
    }
}

impl Drop for Redb {
    /// What was not synced is lost in redb unless a synced commit follows; the others do as much when closed.
    fn drop(&mut self) {
        self.db.begin_write().unwrap().commit().unwrap();
    }
}

pub struct Fjall {
    db: fjall::Database,
    keys: fjall::Keyspace,
    synced: bool,
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall 3.1.13";

    fn load(path: &Path) {
        let this = Self::open(path, false);
        for batch in batches() {
            let mut write = this.db.batch();
            for n in batch {
                write.insert(&this.keys, key(n), value(n));
            }
            write.commit().unwrap();
        }
    }

    fn open(path: &Path, synced: bool) -> Self {
        let db = fjall::Database::builder(path.join("db")).open().unwrap();
        let keys = db.keyspace("t", fjall::KeyspaceCreateOptions::default).unwrap();
        Self { db, keys, synced }
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(Option<&[u8]>) -> bool) -> bool {
        see(self.keys.get(key).unwrap().as_deref())
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.keys.insert(key, value).unwrap();
        if self.synced {
            self.db.persist(fjall::PersistMode::SyncData).unwrap();
        }
    }

    fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        for pair in self.keys.iter() {
            let (key, value) = pair.into_inner().unwrap();
            see(&key, &value);
        }
    }
}

pub struct Heed {
    env: heed::Env,
    table: heed::Database<heed::types::Bytes, heed::types::Bytes>,
}

/// Room in the address space.
const MAP_BYTES: usize = 4 << 30;

impl Heed {
    fn environment(path: &Path, synced: bool) -> heed::Env {
        let folder = path.join("db");
        std::fs::create_dir_all(&folder).unwrap();
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        let flags = if synced { heed::EnvFlags::empty() } else { heed::EnvFlags::NO_SYNC };
        // SAFETY: nobody else touches the folder; a crash that would damage an unsynced file is not part of this.
        unsafe { options.flags(flags).open(folder).unwrap() }
    }
}

impl Engine for Heed {
    const NAME: &'static str = "LMDB 0.9 (heed 0.22.1)";

    fn load(path: &Path) {
        let this = Self::open(path, false);
        for batch in batches() {
            let mut write = this.env.write_txn().unwrap();
            for n in batch {
                this.table.put(&mut write, &key(n), &value(n)).unwrap();
            }
            write.commit().unwrap();
        }
    }

    fn open(path: &Path, synced: bool) -> Self {
        let env = Self::environment(path, synced);
        let mut write = env.write_txn().unwrap();
        let table = env.create_database(&mut write, None).unwrap();
        write.commit().unwrap();
        Self { env, table }
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(Option<&[u8]>) -> bool) -> bool {
        let read = self.env.read_txn().unwrap();
        see(self.table.get(&read, key).unwrap())
    }

    fn put(&self, key: &Key, value: &[u8]) {
        let mut write = self.env.write_txn().unwrap();
        self.table.put(&mut write, key, value).unwrap();
        write.commit().unwrap();
    }

    fn scan(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        let read = self.env.read_txn().unwrap();
        for pair in self.table.iter(&read).unwrap() {
            let (key, value) = pair.unwrap();
            see(key, value);
        }
    }
}

impl Drop for Heed {
    fn drop(&mut self) {
        self.env.force_sync().unwrap();
    }
}
