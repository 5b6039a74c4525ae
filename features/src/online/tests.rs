//! The embedded store: what a write replaces, what a restart finds, who may open the file.

use sluice_protocol::{Code, Digest};

use super::{EmbeddedStore, ViewHeader, ViewRows, WriteReport};
use crate::definitions::ViewId;
use crate::entity::EntityKey;
use crate::error::FeatureError;
use crate::value::{DataType, Value};

fn batch(definition: &str, rows: &[(i64, i64, f64)]) -> ViewRows {
    let header = ViewHeader {
        view: ViewId { name: "sales".into(), version: 1 },
        definition: Digest::of(definition.as_bytes()),
        join_key: "store".into(),
        key_type: DataType::Int64,
        columns: vec![("units".into(), DataType::Float64)],
    };
    let rows = rows
        .iter()
        .map(|(key, time, units)| (EntityKey::Int64(*key), *time, vec![Value::Float64(*units)]));
    ViewRows::new(header, rows).unwrap()
}

/// The same rows of another view.
fn other_view(batch: ViewRows) -> ViewRows {
    let (mut header, rows) = batch.into_parts();
    header.view.name = "stock".into();
    ViewRows::stored(header, rows)
}

/// The stored rows as `key@time=units`, by key.
fn shown(store: &EmbeddedStore) -> String {
    let views = store.views.pin();
    let Some(table) = views.get(&batch("", &[]).header().view) else {
        return "nothing".into();
    };
    let rows = table.rows.pin();
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|(key, _)| (*key).clone());
    let one = |(key, row): &(&EntityKey, &super::Row)| {
        format!("{key}@{}={}", row.time(), row.value(0, 1, DataType::Float64))
    };
    rows.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn laws(store: &EmbeddedStore) {
    let check = |batch: &ViewRows, written, stale, expected: &str| {
        assert_eq!(store.write(batch).unwrap(), WriteReport { written, stale });
        assert_eq!(shown(store), expected);
    };
    check(&batch("a", &[(1, 10, 1.0), (2, 10, 2.0)]), 2, 0, "1@10=1.0 2@10=2.0");
    // Older stays out, equal corrects, newer goes in, others stay.
    check(&batch("a", &[(1, 9, 9.0), (2, 10, 3.0)]), 1, 1, "1@10=1.0 2@10=3.0");
    check(&batch("a", &[(1, 11, 4.0), (3, 1, 5.0)]), 2, 0, "1@11=4.0 2@10=3.0 3@1=5.0");
    check(&batch("a", &[]), 0, 0, "1@11=4.0 2@10=3.0 3@1=5.0");
    // Rows of another definition cannot stand beside these.
    check(&batch("b", &[(2, 5, 6.0)]), 1, 0, "2@5=6.0");
}

#[test]
fn both_stores_keep_the_same_laws() {
    laws(&EmbeddedStore::in_memory());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/online.redb");
    laws(&EmbeddedStore::open(&path).unwrap());
    assert_eq!(shown(&EmbeddedStore::open(&path).unwrap()), "2@5=6.0");
}

#[test]
fn views_are_written_together_and_each_once() {
    let store = EmbeddedStore::in_memory();
    let both = [batch("a", &[(1, 5, 2.0)]), other_view(batch("a", &[(1, 5, 3.0), (2, 5, 4.0)]))];
    let decoded = ViewRows::decode_all(&ViewRows::encode_all(&both)).unwrap();
    assert_eq!(decoded, both);
    let written = store.write_all(&decoded).unwrap();
    assert_eq!(written.iter().map(|report| report.written).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(store.rows(&both[1].header().view), 2);

    let twice = [both[0].clone(), both[0].clone()];
    for error in [
        store.write_all(&twice).unwrap_err(),
        ViewRows::decode_all(&ViewRows::encode_all(&twice)).unwrap_err(),
        ViewRows::decode_all(&[]).unwrap_err(),
    ] {
        assert!(matches!(error, FeatureError::Damaged { .. }), "{error:?}");
    }
}

#[test]
fn only_one_process_opens_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("online.redb");
    let first = EmbeddedStore::open(&path).unwrap();
    let error = EmbeddedStore::open(&path).unwrap_err();
    assert!(matches!(error, FeatureError::StoreBusy { .. }), "{error:?}");
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.to_string().contains("--admin"), "{error}");
    drop(first);
    EmbeddedStore::open(&path).unwrap();
}

#[test]
fn a_file_of_another_kind_or_a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let junk = folder.path().join("junk.redb");
    std::fs::write(&junk, vec![7; 10_000]).unwrap();
    assert!(matches!(EmbeddedStore::open(&junk), Err(FeatureError::Store { .. })));
    let newer = folder.path().join("newer.redb");
    drop(EmbeddedStore::open(&newer).unwrap());
    let database = redb::Database::create(&newer).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let meta: redb::TableDefinition<'_, &str, u32> = redb::TableDefinition::new("meta");
        transaction.open_table(meta).unwrap().insert("format", 2).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let error = EmbeddedStore::open(&newer).unwrap_err();
    assert!(error.to_string().contains("newer than 1"), "{error}");
}

#[test]
fn readers_see_whole_rows_while_a_writer_writes() {
    let store = EmbeddedStore::in_memory();
    let generation = |n: i64| batch("a", &[(1, n, n as f64), (2, n, n as f64)]);
    store.write(&generation(0)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..500).for_each(|n| assert_eq!(store.write(&generation(n)).unwrap().written, 2))
        });
        for _ in 0..2_000 {
            for row in shown(&store).split(' ') {
                let (_, stored) = row.split_once('@').unwrap();
                let (time, units) = stored.split_once('=').unwrap();
                assert_eq!(format!("{time}.0"), units);
            }
        }
    });
    assert_eq!(shown(&store), "1@499=499.0 2@499=499.0");
}
