//! Round trips, damage, versions and the fixtures of each released version.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::{
    app::{App, Volume},
    brick::Brick,
    instance::Instance,
    user::User,
};
use crate::store::samples::{any_path, any_record, bare, full, latest_app, usual_app};

fn samples() -> Vec<(&'static str, Record)> {
    full().into_iter().chain(bare()).collect()
}

fn sealed(record: &Record) -> Result<Vec<u8>, StoreError> {
    encode(&key_of(record), record)
}

fn key_of(record: &Record) -> Vec<u8> {
    key_bytes(&record.key())
}

fn round_trip(record: &Record) {
    let envelope = sealed(record).unwrap();
    assert_eq!(decode(&key_of(record), &envelope).unwrap(), *record);
    assert_eq!(parse_key(&key_of(record)), Some(record.key()));
}

#[test]
fn samples_read_back_as_written() {
    for (_, record) in samples() {
        round_trip(&record);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_reads_back_as_written(record in any_record()) {
        round_trip(&record);
    }

    #[test]
    fn keys_sort_as_their_bytes_do(left in any_record(), right in any_record(), path in any_path(), a in any::<i64>(), b in any::<i64>()) {
        prop_assert_eq!(left.key().cmp(&right.key()), key_of(&left).cmp(&key_of(&right)));
        let version = |number| RecordKey::Definition(path.clone(), Timestamp(number));
        prop_assert_eq!(version(a).cmp(&version(b)), key_bytes(&version(a)).cmp(&key_bytes(&version(b))));
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(key in prop::collection::vec(0..12_u8, 0..40), value in prop::collection::vec(any::<u8>(), 0..60)) {
        prop_assert!(decode(&key, &value).is_err());
        _ = (parse_key(&key), describe_bytes(&key));
    }
}

#[test]
fn a_flipped_bit_in_any_byte_is_noticed_and_the_record_named() {
    for (_, record) in samples() {
        let (key, envelope) = (key_of(&record), sealed(&record).unwrap());
        for byte in 0..envelope.len() {
            let bit = byte % 8;
            let mut damaged = envelope.clone();
            damaged[byte] ^= 1 << bit;
            match decode(&key, &damaged) {
                Err(StoreError::Corrupt { key, .. }) => assert_eq!(key, describe(&record.key())),
                other => panic!("bit {bit} of byte {byte}: {other:?}"),
            }
        }
        for length in 0..envelope.len() {
            assert!(matches!(decode(&key, &envelope[..length]), Err(StoreError::Corrupt { .. })), "cut to {length} bytes");
        }
    }
}

#[test]
fn a_value_does_not_pass_under_another_key() {
    let (_, record) = samples().swap_remove(4);
    let Record::Instance(instance) = &record else { panic!("{record:?}") };
    let other = key_bytes(&RecordKey::Instance(InstanceId::new("/other".parse().unwrap(), instance.id.uuid())));
    assert!(matches!(decode(&other, &sealed(&record).unwrap()), Err(StoreError::Corrupt { .. })));
}

/// Versions of one app lie in each other's places, and so do those of the root.
#[test]
fn a_version_passes_under_the_key_of_another_one_of_its_family_alone() {
    let check = |record: Record, other: RecordKey, passes: bool| {
        let key = key_bytes(&other);
        let envelope = encode(&key, &record).unwrap();
        match decode(&key, &envelope) {
            Ok(decoded) => assert!(passes && decoded == record, "{other:?}"),
            Err(error) => assert!(!passes && matches!(error, StoreError::Corrupt { .. }), "{other:?}: {error}"),
        }
        // Not where it was not sealed for.
        let moved = decode(&key, &sealed(&record).unwrap());
        assert!(matches!(moved, Err(StoreError::Corrupt { .. })), "{other:?}");
    };
    let version = Timestamp(7);
    let sample = |wanted: &str| samples().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
    let app = || "/prod/db/pg".parse().unwrap();
    check(sample("definition"), RecordKey::Definition(app(), version), true);
    check(sample("definition"), RecordKey::Definition("/prod/db/pq".parse().unwrap(), version), false);
    check(sample("definition"), RecordKey::Archived(app(), version), false);
    check(sample("archived"), RecordKey::Archived(app(), version), false);
    check(sample("archived"), RecordKey::Definition(app(), version), false);
    check(sample("root-version"), RecordKey::RootVersion(version), true);
    check(sample("root-version"), RecordKey::Definition(app(), version), false);
    check(sample("port"), RecordKey::Port(7), false);
    check(sample("app"), RecordKey::App("/prod/db/pq".parse().unwrap()), false);
}

#[test]
fn records_are_named_in_words() {
    let names: Vec<String> = full().iter().map(|(_, record)| describe(&record.key())).collect();
    insta::assert_snapshot!(names.join("\n"), @"
    meta
    app /prod/db/pg
    definition /prod/db/pg 2026-05-28T20:26:40.123Z
    definition /large 2026-05-28T20:26:40.123Z
    instance /shop/web 6b0cd2ef-b243-11e8-8b80-024247c0a575
    deployment 867ed450-f6a8-4d33-9b0e-e11c5513990b
    port 1066
    brick testdb-var-lib-pgsql-9.6-data-0123456789abcdef
    agent 6b0cd2e8-b243-11e8-8b80-024247c0a575-S0
    failure /testdb
    user zmfsea
    group /prod
    root version 2026-05-28T20:26:40.123Z
    archived definition /prod/db/pg 2026-05-28T20:26:40.123Z
    definition /prod/pod 2026-05-28T20:26:40.123Z
    instance /shop/web 6b0cd2e1-b243-11e8-8b80-024247c0a575
    deployment 867ed450-f6a8-4d33-9b0e-e11c5513990b
    ");
    assert_eq!(describe_bytes(HEAD_KEY), "head");
    assert_eq!(describe_bytes(&[4, 255]), "with the key 04ff");
}

/// `sealed` with its checksum made right again.
fn resealed(key: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (_, record) = samples().into_iter().find(|(_, record)| key_of(record) == key).unwrap();
    let mut envelope = sealed(&record).unwrap();
    envelope.truncate(envelope.len() - CHECKSUM_BYTES);
    change(&mut envelope);
    let sum = checksum(key, &envelope);
    envelope.extend_from_slice(&sum.to_le_bytes());
    envelope
}

#[test]
fn what_a_newer_version_wrote_is_refused_as_such() {
    let key = key_bytes(&RecordKey::Port(1066));
    let newer_format = resealed(&key, |bytes| bytes[0] = FORMAT + 1);
    assert!(matches!(decode(&key, &newer_format), Err(StoreError::TooNew { found: 2, known: 1 })));
    let newer_schema = resealed(&key, |bytes| bytes[2] = 7);
    assert!(matches!(decode(&key, &newer_schema), Err(StoreError::TooNew { found: 7, known: 1 })));
    let unheard_of = resealed(&key, |bytes| bytes[3] = 9);
    assert!(decode(&key, &unheard_of).unwrap_err().to_string().contains("unknown form 9"));
    let older_schema = resealed(&key, |bytes| bytes[2] = 0);
    assert!(decode(&key, &older_schema).unwrap_err().to_string().contains("no schema 0"));
}

#[test]
fn a_text_longer_than_announced_is_not_read() {
    let (_, record) = samples().into_iter().find(|(name, _)| *name == "definition-large").unwrap();
    let key = key_of(&record);
    assert_eq!(sealed(&record).unwrap()[3], DEFLATE);
    for length in [0_u32, 10, MAX_RECORD_BYTES as u32 + 1, u32::MAX] {
        let bomb = resealed(&key, |bytes| bytes[4..8].copy_from_slice(&length.to_le_bytes()));
        assert!(matches!(decode(&key, &bomb), Err(StoreError::Corrupt { .. })), "{length}");
    }
}

/// Every object of every record refuses a field that it does not know, and every enum a value; maps with free names excepted.
#[test]
fn unknown_fields_and_values_are_errors() {
    for (name, record) in samples() {
        let (key, envelope) = (key_of(&record), sealed(&record).unwrap());
        let (_, text) = unseal(Kind::from_byte(key[0]).unwrap(), &key, &envelope).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        for place in places(&value, String::new()) {
            let mut changed = value.clone();
            match changed.pointer_mut(&place).unwrap() {
                Value::Object(fields) => _ = fields.insert("fieldFromTheFuture".into(), Value::Null),
                other => *other = Value::String("value-from-the-future".into()),
            }
            let sealed = seal(Kind::from_byte(key[0]).unwrap(), &key, &changed).unwrap();
            let refused = matches!(decode(&key, &sealed), Err(StoreError::Corrupt { .. }));
            assert!(refused, "{name} accepts something unknown at {place}");
        }
    }
}

/// Pointers to all objects with fixed fields, and to the enums that are stored as texts.
fn places(value: &Value, at: String) -> Vec<String> {
    const FREE_NAMES: [&str; 3] = ["env", "environment", "labels"];
    const ENUMS: [&str; 13] = [
        "condition",
        "goal",
        "kind",
        "network",
        "operator",
        "position",
        "protocol",
        "port",
        "mode",
        "file_system",
        "kill_selection",
        "state",
        "unreachable_strategy",
    ];
    let last = at.rsplit('/').next().unwrap_or_default();
    let mut found = Vec::new();
    match value {
        Value::Object(fields) => {
            if !FREE_NAMES.contains(&last) {
                found.push(at.clone());
            }
            fields.iter().for_each(|(name, value)| found.extend(places(value, format!("{at}/{name}"))));
        }
        Value::Array(values) => values.iter().enumerate().for_each(|(n, value)| found.extend(places(value, format!("{at}/{n}")))),
        _ if ENUMS.contains(&last) => found.push(at),
        _ => {}
    }
    found
}

/// A sample as it is read from the first version, which knew no owners of definitions and deployments.
fn as_of_version_1(record: Record) -> Record {
    match as_of_version_2(record) {
        Record::Definition(app) => Record::Definition(Arc::new(App { owner: None, vouched: true, ..(*app).clone() })),
        Record::Deployment(deployment) => {
            let mut deployment = (*deployment).clone();
            deployment.changes.iter_mut().for_each(|change| change.owner = None);
            Record::Deployment(Arc::new(deployment))
        }
        Record::User(user) => Record::User(Arc::new(User { monitor: false, ..(*user).clone() })),
        other => other,
    }
}

/// A sample as it is read from the second version, which knew no groups, dependencies and checks.
fn as_of_version_2(record: Record) -> Record {
    match as_of_version_3(record) {
        Record::Definition(app) => {
            let unknown = App {
                dependencies: vec![],
                health_checks: vec![],
                readiness_checks: vec![],
                fetch: vec![],
                administered: false,
                ..(*app).clone()
            };
            Record::Definition(Arc::new(unknown))
        }
        Record::Instance(instance) => Record::Instance(Arc::new(Instance { checks: vec![], ready: false, ..(*instance).clone() })),
        Record::Deployment(deployment) => {
            let mut deployment = (*deployment).clone();
            deployment.groups.clear();
            Record::Deployment(Arc::new(deployment))
        }
        other => other,
    }
}

/// The samples that versions before pods had.
fn samples_without_pods() -> Vec<(&'static str, Record)> {
    samples().into_iter().filter(|(name, _)| !name.ends_with("-pod")).collect()
}

/// A sample as it is read from the third version, which knew no GPUs.
fn as_of_version_3(record: Record) -> Record {
    match as_of_version_6(record) {
        Record::Definition(app) => Record::Definition(Arc::new(App { gpus: 0, ..(*app).clone() })),
        Record::Archived(app) => Record::Archived(Arc::new(App { gpus: 0, ..(*app).clone() })),
        other => other,
    }
}

/// A sample as it is read from the sixth version, which knew neither persistent nor external volumes.
fn as_of_version_6(record: Record) -> Record {
    let record = as_of_version_7(record);
    let without = |app: &App| {
        let mut app = app.clone();
        app.container
            .iter_mut()
            .for_each(|container| container.volumes.retain(|volume| !matches!(volume, Volume::Persistent(_) | Volume::External(_))));
        Arc::new(app)
    };
    match as_of_version_7(record) {
        Record::Definition(app) => Record::Definition(without(&app)),
        Record::Archived(app) => Record::Archived(without(&app)),
        Record::Brick(brick) => Record::Brick(Arc::new(Brick { reservation: None, ..(*brick).clone() })),
        other => other,
    }
}

/// A sample as it is read from the eighth version, in which networks in bridge mode had no labels.
fn as_of_version_8(record: Record) -> Record {
    let without = |app: &App| Arc::new(App { bridge_labels: Default::default(), ..app.clone() });
    match record {
        Record::Definition(app) => Record::Definition(without(&app)),
        Record::Archived(app) => Record::Archived(without(&app)),
        other => other,
    }
}

/// A sample as it is read from the seventh version, which knew neither generic checks nor the last of the fields.
fn as_of_version_7(record: Record) -> Record {
    let record = as_of_version_8(record);
    let without = |app: &App| {
        let mut app =
            App { check: None, resource_limits: None, tty: None, executor_resources: None, secrets: Default::default(), ..app.clone() };
        if let Some(container) = &mut app.container {
            container.linux_info = None;
            container.volumes.retain(|volume| !matches!(volume, Volume::Secret { .. }));
            container.docker.iter_mut().for_each(|docker| docker.pull_config = None);
        }
        if let Some(pod) = &mut app.pod {
            pod.linux_info = None;
            pod.volumes.retain(|volume| volume.secret.is_none());
            for container in &mut pod.containers {
                container.check = None;
                container.resource_limits = None;
                container.tty = None;
                container.linux_info = None;
                container.image.iter_mut().for_each(|image| image.pull_config = None);
            }
        }
        Arc::new(app)
    };
    match record {
        Record::Definition(app) => Record::Definition(without(&app)),
        Record::Archived(app) => Record::Archived(without(&app)),
        other => other,
    }
}

fn is_of_version_3(record: &Record) -> bool {
    matches!(record, Record::Group(_) | Record::RootVersion(_) | Record::Archived(_))
}

#[test]
fn fixtures_of_version_1_stay_readable() {
    check_fixtures(
        "v1",
        samples_without_pods()
            .into_iter()
            .filter(|(_, record)| !is_of_version_3(record))
            .map(|(name, record)| (name, as_of_version_1(record)))
            .collect(),
    );
}

#[test]
fn fixtures_of_version_2_stay_readable() {
    let changed = |record: &Record| matches!(record, Record::Definition(_) | Record::Deployment(_));
    let samples = samples_without_pods().into_iter().filter(|(_, record)| changed(record));
    let samples = samples.map(|(name, record)| (name, as_of_version_2(record)));
    check_fixtures("v2", samples.collect());
}

#[test]
fn fixtures_of_version_3_stay_readable() {
    let changed =
        |record: &Record| is_of_version_3(record) || matches!(record, Record::Definition(_) | Record::Deployment(_) | Record::Instance(_));
    let samples = samples_without_pods().into_iter().filter(|(_, record)| changed(record));
    let samples = samples.map(|(name, record)| (name, as_of_version_3(record)));
    check_fixtures("v3", samples.collect());
}

#[test]
fn fixtures_of_version_4_stay_readable() {
    let changed = |record: &Record| matches!(record, Record::Definition(_) | Record::Archived(_));
    let samples = samples_without_pods().into_iter().filter(|(_, record)| changed(record));
    check_fixtures("v4", samples.map(|(name, record)| (name, as_of_version_6(record))).collect());
}

/// The version after the fourth, in which users changed.
#[test]
fn fixtures_of_version_5_stay_readable() {
    check_fixtures("v5", samples().into_iter().filter(|(_, record)| matches!(record, Record::User(_))).collect());
}

/// The version in which pods came.
#[test]
fn fixtures_of_version_6_stay_readable() {
    let changed =
        |record: &Record| matches!(record, Record::Definition(_) | Record::Deployment(_) | Record::Instance(_) | Record::Archived(_));
    let samples = samples().into_iter().filter(|(_, record)| changed(record));
    check_fixtures("v6", samples.map(|(name, record)| (name, as_of_version_6(record))).collect());
}

/// The version in which volumes that are no bricks came.
#[test]
fn fixtures_of_version_7_stay_readable() {
    let changed = |record: &Record| matches!(record, Record::Definition(_) | Record::Archived(_) | Record::Brick(_));
    let samples = samples().into_iter().filter(|(_, record)| changed(record));
    check_fixtures("v7", samples.map(|(name, record)| (name, as_of_version_7(record))).collect());
}

/// The version in which generic checks and the last of the fields came.
#[test]
fn fixtures_of_version_8_stay_readable() {
    let changed = |record: &Record| matches!(record, Record::Definition(_) | Record::Archived(_));
    let samples = samples().into_iter().filter(|(_, record)| changed(record));
    check_fixtures("v8", samples.map(|(name, record)| (name, as_of_version_8(record))).collect());
}

/// The version in which labels of networks in bridge mode came.
#[test]
fn fixtures_of_version_9_stay_readable() {
    let changed = |record: &Record| matches!(record, Record::Definition(_) | Record::Archived(_));
    check_fixtures("v9", samples().into_iter().filter(|(_, record)| changed(record)).collect());
}

/// The version in which what most apps have is left out.
#[test]
fn fixtures_of_version_10_stay_readable() {
    let changed = |record: &Record| matches!(record, Record::Definition(_) | Record::Archived(_));
    let usual = ("definition-usual", Record::Definition(Arc::new(usual_app())));
    round_trip(&usual.1);
    check_fixtures("v10", samples().into_iter().filter(|(_, record)| changed(record)).chain([usual]).collect());
}

/// The version in which the present definition of an app is the latest one, versions may lie in each other's places, and the dates of a version that
/// changed everything are left out.
#[test]
fn fixtures_of_version_11_stay_readable() {
    let changed = |record: &Record| matches!(record, Record::App(_) | Record::Definition(_) | Record::RootVersion(_) | Record::Archived(_));
    let latest = ("definition-latest", Record::Definition(Arc::new(latest_app())));
    round_trip(&latest.1);
    check_fixtures("v11", samples().into_iter().filter(|(_, record)| changed(record)).chain([latest]).collect());
}

/// One file per sample: the key and the envelope in hexadecimal, and for people the text. Written once, when a version is released; run with
/// `XTAO_WRITE_FIXTURES=1` after adding a sample. An existing file is never written again. A new version needs files of what it changed only.
fn check_fixtures(version: &str, samples: Vec<(&'static str, Record)>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/store/fixtures").join(version);
    for (name, record) in &samples {
        let file = folder.join(format!("{name}.txt"));
        if std::env::var_os("XTAO_WRITE_FIXTURES").is_some() && !file.exists() {
            std::fs::write(&file, fixture(record)).unwrap();
        }
        let content = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let part = |label: &str| {
            let line = content.lines().find_map(|line| line.strip_prefix(label)).unwrap();
            (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect::<Vec<u8>>()
        };
        assert_eq!(decode(&part("key: "), &part("envelope: ")).unwrap(), *record, "{name}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), samples.len(), "a fixture without a sample");
}

fn fixture(record: &Record) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (key, envelope) = (key_of(record), sealed(record).unwrap());
    let (_, text) = unseal(Kind::from_byte(key[0]).unwrap(), &key, &envelope).unwrap();
    format!("key: {}\nenvelope: {}\ntext: {}\n", hex(&key), hex(&envelope), String::from_utf8_lossy(&text))
}
