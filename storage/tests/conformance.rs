//! openraft's own tests of a log and a state machine, on each engine.

mod common;

use buoy_storage::memory::MemoryDisk;
use buoy_storage::{LogStore, Machine, Opened, Threading, TypeConfig, open_with_engine};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;

struct Sled;

struct Inline;

fn parts(dir: TempDir, opened: Opened) -> (TempDir, LogStore, Machine) {
    (dir, opened.log, opened.machine)
}

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Sled {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let opened = common::open_dir(&dir.path().join("data"));
        Ok(parts(dir, opened))
    }
}

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Inline {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let engine = Box::new(MemoryDisk::default().engine());
        let opened = open_with_engine(engine, dir.path(), Threading::Inline).unwrap();
        Ok(parts(dir, opened))
    }
}

#[test]
fn openraft_accepts_sled() {
    TypeConfig::run(async { Suite::test_all(Sled).await.unwrap() });
}

#[test]
fn openraft_accepts_memory_without_a_writer_thread() {
    TypeConfig::run(async { Suite::test_all(Inline).await.unwrap() });
}
