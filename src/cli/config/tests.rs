use std::ffi::OsStr;

use digstore::base::disk::{open_root, write_atomic};
use digstore::repo::settings::Auto;
use tempfile::TempDir;

use super::keys::Field;
use super::*;

const EXAMPLE_ON_DISK: &str = include_str!("../../../digstore.toml.example");

/// A project folder and a user file, neither with anything in it.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let dir = open_root(self.folder.path()).unwrap();
        write_atomic(dir.as_ref(), OsStr::new(name), 0o600, text.as_bytes()).unwrap();
        self.folder.path().join(name)
    }

    fn project(&self, text: &str) -> PathBuf {
        self.write(FILE_NAME, text)
    }

    fn user(&self, text: &str) {
        self.write("user.toml", text);
    }

    fn load(&self, profile: Option<&str>) -> Result<Config, ConfigError> {
        Config::load(self.folder.path(), Some(&self.folder.path().join("user.toml")), profile)
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::assemble(&[file::parse(text, Path::new("digstore.toml"))?], None)
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn the_example_is_the_defaults_and_the_file_is_the_example() {
    assert_eq!(example(), EXAMPLE_ON_DISK, "write the text of example() to digstore.toml.example");
    let content = file::parse(EXAMPLE_ON_DISK, Path::new("example")).unwrap();
    assert_eq!(content.assigned.len(), KEYS.len(), "every key is in the example");
    let config = Config::assemble(&[content], None).unwrap();
    assert_eq!(config.values, Values::default());
    assert_eq!(config.settings(), Settings::default());
    assert!(EXAMPLE_ON_DISK.lines().all(|line| line.chars().count() <= 120));
    let set = KEYS.iter().map(|key| key.full_name()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(set.len(), KEYS.len());
}

#[test]
fn nothing_said_is_the_defaults() {
    let config = Folder::new().load(None).unwrap();
    assert_eq!(config.settings(), Settings::default());
    assert!(config.list().iter().all(|setting| setting.origin == Origin::Default && setting.value == setting.default));
    assert_eq!((config.author(), config.profile()), (None, None));
}

/// Everything that the rest of the program can see of a configuration.
fn seen(config: &Config) -> (Settings, Option<String>, Drawing, u64, Option<Thresholds>) {
    (config.settings(), config.author(), config.drawing(), config.most_listed(), config.thresholds())
}

/// Values that differ from the default, as they stand in a file.
fn others(key: &Key) -> Vec<String> {
    let default = key.get(&Values::default());
    let mut values = Values::default();
    let numbers = |now: u64, within: &std::ops::RangeInclusive<u64>| {
        [now * 2, now / 2, *within.start(), *within.end(), 1].map(|n| n.to_string()).to_vec()
    };
    let all = match &key.field {
        Field::Text(_) => vec!["\"source_code\"".to_owned()],
        Field::Flag(_) => vec!["true".to_owned(), "false".to_owned()],
        Field::Choice(_, words) => words.iter().map(|word| format!("\"{word}\"")).collect(),
        Field::Time(field, _) => {
            vec![format!("\"{}\"", value::time_text(*field(&mut values) * 2 + Duration::from_millis(1)))]
        }
        Field::Size(field, within) | Field::Count(field, within) => numbers(*field(&mut values), within),
        Field::AutoSize(_, within) | Field::AutoCount(_, within) => numbers(100_000, within),
    };
    all.into_iter().filter(|text| *text != default.to_toml().to_string()).collect()
}

#[test]
fn every_key_does_something() {
    for key in &KEYS {
        // The keys of a mode that is not the default do something in it.
        let mode = if key.name.starts_with("sync_") { "durability = \"buffered\"\n" } else { "" };
        let before = seen(&load(&format!("[core]\n{mode}")).unwrap());
        let has_effect = |value: &String| {
            let section = if key.section == "core" { String::new() } else { format!("[{}]\n", key.section) };
            let text = format!("[core]\n{mode}{section}{} = {value}\n", key.name);
            load(&text).is_ok_and(|config| {
                assert_eq!(config.get(&key.full_name()).unwrap().origin, Origin::File("digstore.toml".into()));
                seen(&config) != before
            })
        };
        assert!(others(key).iter().any(has_effect), "{} does nothing", key.full_name());
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    for (text, line, key, nearest) in [
        ("[performance]\n\nblock_sise = 1", 3, "performance.block_sise", "performance.block_size"),
        ("[core]\nblock_size = 1", 2, "core.block_size", "performance.block_size"),
        ("block_size = 1", 1, "block_size", "performance.block_size"),
        ("[perfomance]", 1, "perfomance", "performance"),
        ("user = 1", 1, "user", "user"),
        ("[profiles.x]\nblok_size = 1", 2, "profiles.x.blok_size", "profiles.x.block_size"),
        ("[profiles.x]\nlock_timeout = 1", 2, "profiles.x.lock_timeout", "profiles.x.block_size"),
    ] {
        let message = error(text);
        assert!(message.starts_with(&format!("digstore.toml:{line}: ")), "{message}");
        assert!(message.contains(&format!("'{key}'")) && message.contains(&format!("is '{nearest}'")), "{message}");
    }
    let config = load("").unwrap();
    assert!(config.get("performance.blocksize").unwrap_err().to_string().contains("performance.block_size"));
    assert_eq!(config.get("performance.memory_limit").unwrap().key, "performance.max_memory_usage");
}

#[test]
fn bad_values_say_what_would_be_good() {
    for (text, wanted) in [
        ("[performance]\nblock_size = '12X'", "digstore.toml:2: performance.block_size: '12X' is not a size; write"),
        ("[performance]\nblock_size = '1GB'", "1GB is out of range; it must be between 4KB and 256MB"),
        ("[performance]\nblock_size = true", "true is not a size"),
        ("[performance]\nblock_size = [1]", "not a value of type array"),
        ("[performance]\nauto_tune = 'yes'", "'yes' is neither true nor false"),
        ("[performance]\nauto_tune = 1", "1 is neither true nor false"),
        ("[performance]\nworker_thread_count = '4'", "'4' is not a number from 0 to 1024"),
        ("[performance]\nsmall_file_batch_size = 0", "0 is not a number from 1 to"),
        ("[performance]\ncompression_level = 20", "20 is not a number from 1 to 19"),
        ("[performance]\ncompression = 'lzma'", "'lzma' is not one of zstd_fast, zstd, zstd_best"),
        ("[performance]\ntiny_file_threshold = '1MB'", "64KB is less than performance.tiny_file_threshold"),
        ("[performance]\nchunk_size_min = '1MB'", "must ascend"),
        ("[performance]\nchunk_size = 65537", "must be even"),
        ("[performance]\nmemory_limit = '1GB'\nmax_memory_usage = '2GB'", "sets the same under another name"),
        ("[core]\nlock_timeout = 10", "10 must stand in quotes and have a unit"),
        ("[core]\nlock_timeout = '10 parsecs'", "is not a time; write 100ms, 10s or 2m"),
        (
            "[core]\nprofile = 'sauce_code'",
            "no profile 'sauce_code'; known are auto, media_files, mixed_workload, source_code",
        ),
        ("[user]\nname = 3", "user.name: 3 must stand in quotes"),
        ("[profiles]\nx = 3", "profiles.x: a profile is a table of keys"),
        ("[core\n", "digstore.toml:1: "),
    ] {
        let message = error(text);
        assert!(message.contains(wanted), "{message}");
        assert!(load(text).unwrap_err().hint().is_some());
    }
}

#[test]
fn nearer_files_win() {
    let place = Folder::new();
    place
        .user("[user]\nname = 'Ada'\nemail = 'ada@example.org'\n[performance]\nblock_size = '1MB'\nlayer_size = '8MB'");
    place.project("[performance]\nblock_size = '2MB'");
    let config = place.load(None).unwrap();
    assert_eq!(config.author().as_deref(), Some("Ada <ada@example.org>"));
    let settings = config.settings();
    assert_eq!((settings.block_len, settings.layer_len), (2 << 20, 8 << 20));
    let origin = |key: &str| config.get(key).unwrap().origin.to_string();
    assert!(origin("performance.block_size").ends_with("/digstore.toml"));
    assert!(origin("performance.layer_size").ends_with("/user.toml"));
    assert_eq!(origin("performance.chunk_size"), "default");
}

#[test]
fn a_profile_lies_beneath_the_file_that_chooses_it_and_above_all_as_an_option() {
    let place = Folder::new();
    let mine = "[profiles.mine]\nblock_size = '1MB'\nlayer_size = '1MB'\nin_flight_size = '1MB'\n";
    let lens = |config: &Config| {
        let settings = config.settings();
        [settings.block_len >> 20, settings.layer_len as usize >> 20, settings.in_flight_len >> 20]
    };
    place.user(&format!("{mine}[performance]\nblock_size = '3MB'\n[core]\nprofile = 'source_code'"));
    place.project("[core]\nprofile = 'mine'\n[performance]\nlayer_size = '5MB'");
    let config = place.load(None).unwrap();
    assert_eq!(lens(&config), [1, 5, 1]);
    assert_eq!((config.profile(), config.settings().batch_files), (Some("mine"), 200));
    assert_eq!(config.get("performance.in_flight_size").unwrap().origin, Origin::Profile("mine".to_owned()));
    assert_eq!(lens(&place.load(Some("mine")).unwrap()), [1, 1, 1]);
    assert!(matches!(place.load(Some("none")), Err(ConfigError::UnknownProfile { place: None, .. })));

    // Chosen in the user file, it lies beneath both files.
    place.user(&format!("{mine}[performance]\nblock_size = '3MB'\n[core]\nprofile = 'mine'"));
    place.project("[performance]\nlayer_size = '5MB'");
    assert_eq!(lens(&place.load(None).unwrap()), [3, 5, 1]);
    // A nearer file can choose none, and can change a profile key by key.
    place.project("[core]\nprofile = ''");
    assert_eq!(place.load(None).unwrap().settings().in_flight_len, Settings::default().in_flight_len);
    place.project("[profiles.mine]\nin_flight_size = '2MB'");
    assert_eq!(lens(&place.load(None).unwrap()), [3, 1, 2]);
}

#[test]
fn built_in_profiles_do_something_with_each_key() {
    let profiles = Profiles::built_in().unwrap();
    let names: Vec<String> = profiles.list().into_iter().map(|profile| profile.name).collect();
    assert_eq!(names, ["auto", "media_files", "mixed_workload", "source_code"]);
    for name in names {
        let profile = profiles.find(&name, None).unwrap();
        assert!(profile.description.is_some());
        for assigned in &profile.assigned {
            let mut config = Config::assemble(&[], None).unwrap();
            // What is on already may be said once more: then it must do something where it is off.
            if let Raw::Flag(flag) = assigned.raw {
                KEYS[assigned.row].put(&mut config.values, &Raw::Flag(!flag)).unwrap();
            }
            let before = seen(&config);
            config.apply(std::slice::from_ref(assigned), &Origin::Default).unwrap();
            assert_ne!(seen(&config), before, "{name}: {}", KEYS[assigned.row].name);
        }
        Config::assemble(&[], Some(&name)).unwrap();
    }
}

#[test]
fn setting_keeps_everything_else() {
    let place = Folder::new();
    let path =
        place.project("# mine\n[performance] # fast\nblock_size = '1MB' # why\nmemory_limit = '1GB'\n\n[core]\n");
    let files = [path.clone()];
    for (key, value) in [
        ("performance.block_size", "2MB"),
        ("performance.worker_thread_count", "3"),
        ("performance.max_memory_usage", "512MB"),
        ("performance.compression_level", "auto"),
        ("profiles.mine.description", "7 days"),
        ("profiles.mine.block_size", "3MB"),
    ] {
        set(&path, key, value, &files).unwrap();
    }
    let missing = place.folder.path().join("missing.toml");
    let all = [place.write("elsewhere.toml", "[profiles.defined_elsewhere]\n"), missing, path.clone()];
    for (name, files) in [("mine", &files[..]), ("", &files), ("auto", &files), ("defined_elsewhere", &all)] {
        set(&path, "core.profile", name, files).unwrap();
    }
    let expected = "# mine\n[performance] # fast\nblock_size = \"2MB\" # why\nmemory_limit = \"512MB\"\n\
        worker_thread_count = 3\ncompression_level = \"auto\"\n\n[core]\nprofile = \"defined_elsewhere\"\n\n\
        [profiles.mine]\ndescription = \"7 days\"\nblock_size = \"3MB\"\n";
    let text = || std::fs::read_to_string(&path).unwrap();
    assert_eq!(text(), expected);
    for (key, value) in [
        ("performance.block_size", "12X"),
        ("performance.blok_size", "1MB"),
        ("profiles.mine.blok_size", "1MB"),
        ("performance.tiny_file_threshold", "1GB"),
        ("core", "x"),
        ("core.profile", "defined_elsewhere"),
    ] {
        assert!(set(&path, key, value, &files).is_err(), "{key}");
    }
    assert_eq!(text(), expected);
    assert!(unset(&path, "core.profile", &files).unwrap());
    assert!(!unset(&path, "core.profile", &files).unwrap() && !unset(&path, "a.b.c", &files).unwrap());
    assert_eq!(text(), expected.replace("profile = \"defined_elsewhere\"\n", ""));
}

#[test]
fn setting_makes_the_file_and_follows_a_link_to_it() {
    let place = Folder::new();
    let path = place.folder.path().join("a/b").join(FILE_NAME);
    set(&path, "user.name", "Ada", std::slice::from_ref(&path)).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "[user]\nname = \"Ada\"\n");
    let dir = open_root(place.folder.path()).unwrap();
    dir.symlink(OsStr::new("a/b/digstore.toml"), OsStr::new("link")).unwrap();
    let link = place.folder.path().join("link");
    set(&link, "user.name", "Eve", std::slice::from_ref(&link)).unwrap();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "[user]\nname = \"Eve\"\n");
    assert_eq!(project_file(&place.folder.path().join("a/b")), Some(path.canonicalize().unwrap()));
}

#[test]
fn removing_keeps_everything_else() {
    let place = Folder::new();
    for (before, key, after) in [
        (
            "# all\ncore.durability = 'strict' # why\n# more\nuser.name = 'A'",
            "core.durability",
            "# all\n# more\nuser.name = 'A'",
        ),
        ("[performance]\n# sizes\nmemory_limit = '1GB'\n", "performance.max_memory_usage", "[performance]\n# sizes\n"),
        ("[performance]\nmax_memory_usage = '1GB'", "performance.memory_limit", "[performance]\n"),
        ("core = { durability = 'strict', profile = '' }\n", "core.durability", "core = { profile = '' }\n"),
        ("user.name = '''\nA\n'''\n# end\n", "user.name", "# end\n"),
        ("[profiles.a]\nblock_size = '1MB'\n[core]\n", "profiles.a", "[core]\n"),
        ("[core]\nno_key = [\n1,\n]\n# end\n", "core.no_key", "[core]\n# end\n"),
        ("[no_section]\nkey = 1\n", "no_section", ""),
    ] {
        let path = place.project(before);
        assert!(unset(&path, key, std::slice::from_ref(&path)).unwrap(), "{before}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), after, "{before}");
        assert!(!unset(&path, key, std::slice::from_ref(&path)).unwrap(), "{before}");
    }
    let path = place.project("[performance]\nblock_size = '1MB'\n");
    assert!(unset(&path, "performance", std::slice::from_ref(&path)).is_err(), "all of a section");
}

#[test]
fn files_that_are_good_together_stay_so() {
    let place = Folder::new();
    let user = place.write("user.toml", "[performance]\nmedium_file_threshold = '4MB'\n[profiles.mine]\n");
    let path = place.project("[core]\nprofile = 'mine'\n");
    let files = [user.clone(), path.clone()];
    set(&path, "performance.small_file_threshold", "2MB", &files).unwrap();
    let small_is_more = set(&user, "performance.medium_file_threshold", "1MB", &files);
    assert!(matches!(small_is_more, Err(ConfigError::BadValue { .. })));
    assert!(matches!(unset(&user, "profiles.mine", &files), Err(ConfigError::UnknownProfile { .. })));
    // What is wrong already can be mended step by step.
    place.write("user.toml", "[performance]\nmedium_file_threshold = '1MB'\n");
    unset(&path, "core.profile", &files).unwrap();
    set(&path, "performance.small_file_threshold", "512KB", &files).unwrap();
}

#[test]
fn settings_serialize() {
    let json = serde_json::to_value(load("").unwrap().get("core.durability").unwrap()).unwrap();
    assert_eq!((json["origin"].as_str(), json["value"].as_str()), (Some("default"), Some("strict")));
}

#[test]
fn what_is_set_is_not_chosen() {
    let chosen = |text: &str| {
        let settings = load(&format!("[performance]\n{text}")).unwrap().settings();
        let Auto { batch, windows, readers } = settings.auto;
        [batch, windows, readers]
    };
    assert_eq!(chosen(""), [true; 3]);
    assert_eq!(chosen("auto_tune = false"), [false; 3]);
    assert_eq!(chosen("adaptive_processing = false"), [false; 3]);
    assert_eq!(chosen("auto_tune_batch_size = false"), [false, true, true]);
    assert_eq!(chosen("small_file_batch_size = 300"), [false, true, true]);
    assert_eq!(chosen("read_buffer_size = '2MB'"), [true, false, true]);
}

#[test]
fn flags_do_what_they_say() {
    let settings = load("[performance]\nlarge_file_streaming = true").unwrap().settings();
    assert_eq!(settings.classes.medium, settings.classes.small);
    let chunking = load("[performance]\ndeduplication_aggressive = true").unwrap().settings().chunking;
    assert_eq!((chunking.avg_len, chunking.min_len, chunking.max_len), (16 << 10, 4 << 10, 64 << 10));
    assert_eq!(load("[performance]\nperformance_monitoring = false").unwrap().thresholds(), None);
}

#[test]
fn memory_bounds_what_it_says() {
    let settings = load("[performance]\nmax_memory_usage = '128MB'").unwrap().settings();
    assert_eq!((settings.cache_len, settings.in_flight_len, settings.paths_at_once), (24 << 20, 4 << 20, 36 << 10));
    let settings = load("[performance]\nmax_memory_usage = '1TB'").unwrap().settings();
    assert_eq!(settings, Settings::default());
}
