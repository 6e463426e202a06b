//! How much memory there is for keys and values.

use std::path::{Path, PathBuf};

use sterna_runtime::{KvCache, KvPage, Model};
use sterna_ternary::{system, units};

/// Memory that is left to the rest of the program.
const RESERVED: u64 = 1 << 30;
/// Tokens of a context that fits where the quarter is smaller.
const CONTEXT: usize = 8192;
/// Memory where the system does not say how much there is.
const UNKNOWN: u64 = 4 << 30;

/// Too little memory for one context.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: keys and values of one context take {}, and there are {} for them; give --kv-memory or a \
     smaller --context",
    path.display(), units::bytes(*needed), units::bytes(*found)
)]
pub struct NoRoom {
    /// The model's file.
    pub path: PathBuf,
    /// Bytes of one context.
    pub needed: u64,
    /// Bytes that the model can have.
    pub found: u64,
}

/// Pages of keys and values for each model: in `given` bytes, or in a quarter of the memory, with
/// room for one `context`. A draft model has as many pages of its own, in the same memory.
///
/// # Errors
/// [`NoRoom`].
pub fn pages(
    models: &[&Model],
    draft: Option<&Model>,
    given: Option<u64>,
    context: Option<usize>,
) -> Result<Vec<usize>, NoRoom> {
    let all = models.iter().copied().chain(draft);
    let size: u64 = all.map(|model| model.file().len() as u64).sum();
    let memory = available();
    let share = |model: &&Model| {
        let config = model.config();
        let page = |model: &Model| KvCache::page_bytes(model.config(), model.kv_type()) as u64;
        let page = page(model) + draft.map_or(0, page);
        let longest = config.max_position_embeddings;
        let pages_of = |tokens: usize| tokens.min(longest).div_ceil(KvPage::TOKENS) as u64 + 1;
        // Without a wish for a context any will do.
        let least = pages_of(context.unwrap_or(1));
        let bytes = match given {
            Some(bytes) => bytes,
            None => {
                let wanted = (memory / 4).max(page * pages_of(context.unwrap_or(CONTEXT)));
                wanted.min(memory.saturating_sub(size + RESERVED))
            }
        };
        let pages = bytes / models.len() as u64 / page;
        if pages < least {
            return Err(NoRoom {
                path: model.file().path().to_owned(),
                needed: least * page,
                found: bytes / models.len() as u64,
            });
        }
        Ok(pages as usize)
    };
    models.iter().map(share).collect()
}

/// Memory that this process may use: what the system has available, or the limit of its container.
fn available() -> u64 {
    let system = system::machine_memory().map(|memory| memory.available);
    let group = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|text| limit(Path::new("/sys/fs/cgroup"), &text));
    system.into_iter().chain(group).min().unwrap_or(UNKNOWN)
}

/// The least limit of the groups that a process is in, of version 2.
fn limit(root: &Path, groups: &str) -> Option<u64> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = root.join(path);
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    let limits = groups.filter_map(|group| {
        let text = std::fs::read_to_string(group.join("memory.max")).ok()?;
        text.trim().parse().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        assert_eq!(limit(root, "0::/a/b\n"), None);
        std::fs::write(root.join("a/b/memory.max"), "max\n").unwrap();
        std::fs::write(root.join("a/memory.max"), "3000\n").unwrap();
        assert_eq!(limit(root, "0::/a/b\n"), Some(3000));
        std::fs::write(root.join("a/b/memory.max"), "2000\n").unwrap();
        assert_eq!(limit(root, "1:name=x:/y\n0::/a/b\n"), Some(2000));
        assert_eq!(limit(root, "0::/\n"), None);
        assert_eq!(limit(root, "1:memory:/a\n"), None);
    }
}
