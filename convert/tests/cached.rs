//! Packed files that are made once and found again.

use std::fs;
use std::path::{Path, PathBuf};

use sterna_convert::{
    Cached, Error, GgufOptions, GgufType, HeadType, PackCache, PackedOptions, RunFolder, convert,
    open, write_gguf,
};
use sterna_ternary::{Output, Packing};

const OPTIONS: PackedOptions = PackedOptions {
    packing: sterna_ternary::LinearType::Ternary(Packing::I2),
    head: HeadType::Auto,
    activations: None,
    allow_missing: false,
};

/// A folder with a checkpoint `model`, and a cache for it.
struct Setup {
    folder: tempfile::TempDir,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn setup() -> Setup {
    let setup = Setup {
        folder: tempfile::tempdir().unwrap(),
    };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints");
    copy(&fixtures.join("falcon3-packed"), &setup.at("model"));
    setup
}

impl Setup {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cache(&self) -> PackCache {
        PackCache {
            beside: true,
            user: Some(self.at("user")),
        }
    }

    /// The packed file of a model that needs no export.
    fn packed(&self, model: &Path, options: &PackedOptions) -> Result<Cached, Error> {
        let export = |_: &Path, _: &Path| -> Result<u64, Error> { panic!("no export is needed") };
        self.cache().packed(model, options, export, &mut |_, _| {})
    }

    /// The packed files in the folder beside the model.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.at(".sterna")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_packed = |path: &PathBuf| path.extension().is_some_and(|e| e == "sterna");
        paths.filter(is_packed).collect()
    }
}

#[test]
fn a_folder_is_packed_once_to_the_bytes_of_a_conversion() {
    let setup = setup();
    let model = setup.at("model");
    let first = setup.packed(&model, &OPTIONS).unwrap();
    assert_eq!(first.report.unwrap().differ, 0);
    assert_eq!(setup.files(), std::slice::from_ref(&first.path));
    let converted = setup.at("converted.sterna");
    convert(&model, &converted, &OPTIONS, &mut |_, _| {}).unwrap();
    assert!(fs::read(&first.path).unwrap() == fs::read(&converted).unwrap());

    let again = setup.packed(&model, &OPTIONS).unwrap();
    assert_eq!(
        (again.path, again.report.is_none()),
        (first.path.clone(), true)
    );
    let other = PackedOptions {
        packing: Packing::T5.into(),
        ..OPTIONS
    };
    let other = setup.packed(&model, &other).unwrap();
    assert!(other.path != first.path && other.report.is_some());
    // A packed file is itself.
    let itself = setup.packed(&converted, &OPTIONS).unwrap();
    assert_eq!((itself.path, itself.report.is_none()), (converted, true));
}

#[test]
fn a_gguf_file_is_packed_by_its_content_not_its_ending() {
    let setup = setup();
    let gguf = setup.at("model.bin");
    let options = GgufOptions {
        weights: GgufType::I2S,
        head: HeadType::F16,
        pre: None,
        lossy: false,
        allow_missing: false,
    };
    let source = open(&setup.at("model"), false).unwrap();
    let out = Output::new(&gguf).unwrap();
    write_gguf(&*source, &out, &options, &mut |_, _| {}).unwrap();
    let first = setup.packed(&gguf, &OPTIONS).unwrap();
    assert!(first.report.is_some());
    let again = setup.packed(&gguf, &OPTIONS).unwrap();
    assert_eq!((again.path, again.report.is_none()), (first.path, true));
}

#[test]
fn a_changed_source_is_packed_anew_and_the_old_file_removed() {
    let setup = setup();
    let model = setup.at("model");
    let first = setup.packed(&model, &OPTIONS).unwrap();
    // The same content again: it is hashed, and nothing is packed.
    let config = fs::read(model.join("config.json")).unwrap();
    fs::write(model.join("config.json"), &config).unwrap();
    let same = setup.packed(&model, &OPTIONS).unwrap();
    assert_eq!((&same.path, same.report.is_none()), (&first.path, true));

    // One byte of the weights, which are four codes, with the size and the time of the last write
    // as before.
    let weights = model.join("model.safetensors");
    let modified = weights.metadata().unwrap().modified().unwrap();
    let mut bytes = fs::read(&weights).unwrap();
    let codes = bytes.last_mut().unwrap();
    *codes = if *codes == 0b0101_0101 {
        0
    } else {
        0b0101_0101
    };
    fs::write(&weights, bytes).unwrap();
    let file = fs::File::options().write(true).open(&weights).unwrap();
    file.set_modified(modified).unwrap();
    let changed = setup.packed(&model, &OPTIONS).unwrap();
    assert!(changed.report.is_some() && changed.path != first.path);
    assert_eq!(setup.files(), std::slice::from_ref(&changed.path));

    // A file that was not there before, and that travels with the model.
    fs::write(model.join("chat_template.jinja"), "{{ messages }}").unwrap();
    let added = setup.packed(&model, &OPTIONS).unwrap();
    assert!(added.report.is_some() && added.path != changed.path);
}

#[test]
fn where_the_folder_beside_cannot_be_made_the_one_of_the_user_is_used() {
    let setup = setup();
    fs::write(setup.at(".sterna"), "a file in the way").unwrap();
    let first = setup.packed(&setup.at("model"), &OPTIONS).unwrap();
    assert!(first.path.starts_with(setup.at("user")) && first.report.is_some());
    let again = setup.packed(&setup.at("model"), &OPTIONS).unwrap();
    assert_eq!((again.path, again.report.is_none()), (first.path, true));

    let nowhere = PackCache {
        beside: true,
        user: None,
    };
    let error = nowhere.cached(&setup.at("model"), &OPTIONS, &mut |_, _| {});
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains(".sterna") && error.contains("--out FILE"),
        "{error}"
    );
}

#[test]
fn of_several_at_once_one_packs() {
    let setup = setup();
    let pack = || setup.packed(&setup.at("model"), &OPTIONS).unwrap();
    let all: Vec<Cached> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(pack)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(
        all.iter().filter(|cached| cached.report.is_some()).count(),
        1
    );
    assert!(all.iter().all(|cached| cached.path == all[0].path));
}

#[test]
fn a_run_is_its_packed_file_its_model_or_an_exported_checkpoint() {
    let setup = setup();
    let run = setup.at("run");
    fs::create_dir_all(run.join("checkpoints")).unwrap();
    copy(&setup.at("model"), &run.join("model"));
    assert!(RunFolder::open(&run).is_none(), "there is no recipe");
    fs::write(run.join("recipe.toml"), "").unwrap();
    let found = RunFolder::open(&run).unwrap();
    assert_eq!(
        (found.model(), found.packed()),
        (Some(run.join("model")), None)
    );
    let from_model = setup.packed(&run, &OPTIONS).unwrap();
    assert!(from_model.report.is_some() && from_model.path.starts_with(run.join(".sterna")));

    let packed = run.join("model.sterna");
    fs::copy(&from_model.path, &packed).unwrap();
    assert_eq!(setup.packed(&run, &OPTIONS).unwrap().path, packed);
    let set = |name: &str, seconds: u64| {
        let time = std::time::SystemTime::now() + std::time::Duration::from_secs(seconds);
        fs::File::open(run.join(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    set("model/model.safetensors", 10);
    assert_eq!(found.packed(), None, "the model is newer");
    assert_eq!(setup.packed(&run, &OPTIONS).unwrap().path, from_model.path);

    // A checkpoint that is newer than the model is exported, once.
    fs::write(run.join("checkpoints/step-3"), "3").unwrap();
    set("checkpoints", 20);
    assert_eq!((found.model(), found.packed()), (None, None));
    let mut exports = 0;
    let mut exported = || {
        let export = |from: &Path, out: &Path| {
            exports += 1;
            assert_eq!(from, run);
            for entry in fs::read_dir(setup.at("model")).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), out.join(entry.file_name())).unwrap();
            }
            Ok::<u64, Error>(3)
        };
        setup.cache().checkpoint(&run, export).unwrap()
    };
    let (first, again) = (exported(), exported());
    assert_eq!(
        (first.step, again.step, &first.path),
        (Some(3), Some(3), &again.path)
    );
    assert!(first.path.starts_with(run.join(".sterna")));
    let packed = setup
        .cache()
        .cached(&first.path, &OPTIONS, &mut |_, _| {})
        .unwrap();
    assert_eq!(packed.path.parent(), Some(&*run.join(".sterna")));
    fs::write(run.join("checkpoints/step-6"), "6").unwrap();
    let newest = exported();
    assert!(newest.path != first.path && !first.path.exists());
    assert_eq!(exports, 2);
}
