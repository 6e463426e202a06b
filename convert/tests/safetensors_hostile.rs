//! Hugging Face folders that lie: an error that says where, or a model, never a panic, in little
//! time and memory.

mod checkpoint;
mod hostile_input;
mod safetensors_file;

use std::fs;

use hostile_input::{Place, complaint, mutate, read, turns, watched};
use safetensors_file::lies::{Lie, files, index, tensors};
use safetensors_file::{Folder, INDEX, SINGLE};

fn check(good: &Folder, lies: &[Lie]) {
    let place = Place::new();
    let path = place.path("folder");
    good.write(&path);
    read(&path).unwrap();
    let mut wrong = Vec::new();
    for (name, lie, parts) in lies {
        let mut folder = good.clone();
        lie(&mut folder);
        folder.write(&path);
        let result = watched(name, folder.size(), || read(&path));
        wrong.extend(complaint(name, result, parts));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_lie_of_a_header_is_named() {
    assert!(tensors::LIES.len() >= 60, "{}", tensors::LIES.len());
    check(&Folder::good(), tensors::LIES);
}

#[test]
fn every_lie_of_an_index_is_named() {
    check(&Folder::sharded(), index::LIES);
}

#[test]
fn every_lie_of_a_file_beside_the_weights_is_named() {
    check(&Folder::good(), files::LIES);
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let place = Place::new();
    let path = place.path("folder");
    for (folder, names) in [
        (
            Folder::good(),
            &[SINGLE, "config.json", "tokenizer.json"][..],
        ),
        (Folder::sharded(), &[INDEX, "two.safetensors"]),
    ] {
        folder.write(&path);
        for (name, bytes) in folder
            .bytes()
            .into_iter()
            .filter(|f| names.contains(&&*f.0))
        {
            for cut in 0..bytes.len() {
                fs::write(path.join(&name), &bytes[..cut]).unwrap();
                let error = read(&path)
                    .expect_err("a file that was cut off")
                    .to_string();
                assert!(error.contains(&name), "{name} {cut}: {error}");
            }
            fs::write(path.join(&name), bytes).unwrap();
        }
    }
}

#[test]
fn a_hundred_thousand_mutations_never_panic() {
    const ALL: usize = 100_000;
    let mut folders = [
        Folder::good(),
        Folder::sharded(),
        Folder::of_numbers(Some("online")),
        Folder::of_numbers(None),
    ];
    folders[1..]
        .iter_mut()
        .for_each(|folder| folder.files.clear()); // one with tokenizer and so on is enough
    let contents = folders.each_ref().map(Folder::bytes);
    let refused = turns(ALL, |i, place, random| {
        let turn = i / 2 % folders.len();
        let (folder, files) = (&folders[turn], &contents[turn]);
        let path = place.path(&turn.to_string());
        if !path.exists() {
            folder.write(&path);
        }
        let shard = if folder.index.is_some() {
            "one.safetensors"
        } else {
            SINGLE
        };
        // Weights take most of the turns.
        let (name, good) = match (random.next() * 8.0) as usize {
            0 => &files[0],
            1 => &files[(random.next() * files.len() as f32) as usize],
            _ => files.iter().find(|f| f.0 == shard).unwrap(),
        };
        let mut bytes = good.clone();
        mutate(&mut bytes, random);
        fs::write(path.join(name), &bytes).unwrap();
        let result = watched(name, bytes.len(), || read(&path));
        fs::write(path.join(name), good).unwrap();
        result.is_err()
    });
    assert!(refused > ALL / 3, "{refused}");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_waited_for() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    let path = place.path("folder");
    for (folder, name) in [
        (Folder::good(), SINGLE),
        (Folder::good(), "config.json"),
        (Folder::good(), "tokenizer.json"),
        (Folder::good(), "chat_template.jinja"),
        (Folder::sharded(), INDEX),
        (Folder::sharded(), "one.safetensors"),
    ] {
        for device in ["/dev/zero", "/dev/tty", "/dev", "/proc/self/fd"] {
            folder.write(&path);
            fs::remove_file(path.join(name)).unwrap();
            symlink(device, path.join(name)).unwrap();
            let error = watched(name, 0, || read(&path)).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("not a file"),
                "{error}"
            );
        }
    }
    // The cache of the hub is made of links to files.
    let folder = Folder::good();
    folder.write(&path);
    let blob = place.path("blob");
    fs::rename(path.join(SINGLE), &blob).unwrap();
    symlink(&blob, path.join(SINGLE)).unwrap();
    read(&path).unwrap();
    fs::remove_file(blob).unwrap();
    read(&path).unwrap_err();
}
