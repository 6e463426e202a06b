//! The prefix tree: keys and values of sequences that have ended, by their tokens.
//!
//! A node is a page with the tokens whose keys and values it holds. Full pages have children, the
//! pages that followed; a page that is not full is a leaf. A new prompt takes whole pages by
//! reference. Of the page after them it takes what the tokens have in common; the cache copies that
//! page when it goes on. Pages that nobody uses are given up in the order of their last use, leaves
//! first.

use std::collections::BTreeSet;

use sterna_runtime::{KvCache, KvPage};

const ROOT: usize = 0;

/// The tree.
#[derive(Debug)]
pub struct Tree {
    /// Nodes by index; free places are `None`. The root has no page.
    nodes: Vec<Option<Node>>,
    free: Vec<usize>,
    /// Nodes without children, by their last use.
    leaves: BTreeSet<(u64, usize)>,
    /// Counts uses.
    uses: u64,
}

#[derive(Debug)]
struct Node {
    parent: usize,
    tokens: Box<[u32]>,
    page: Option<KvPage>,
    children: Vec<usize>,
    used: u64,
}

/// The longest beginning of a prompt that is there.
#[derive(Debug, Default)]
pub struct Prefix {
    /// Tokens.
    pub len: usize,
    /// The pages that hold them.
    pub pages: Vec<KvPage>,
}

impl Tree {
    /// An empty tree.
    pub fn new() -> Tree {
        let root = Node {
            parent: ROOT,
            tokens: Box::default(),
            page: None,
            children: Vec::new(),
            used: 0,
        };
        Tree {
            nodes: vec![Some(root)],
            free: Vec::new(),
            leaves: BTreeSet::new(),
            uses: 0,
        }
    }

    /// The longest beginning of `tokens`, at most `most` of them, that is there.
    pub fn find(&mut self, tokens: &[u32], most: usize) -> Prefix {
        let tokens = &tokens[..most.min(tokens.len())];
        let mut prefix = Prefix::default();
        let mut node = ROOT;
        while let Some((child, common)) = self.closest(node, &tokens[prefix.len..]) {
            let page = self.node(child).page.clone();
            prefix.pages.push(page.expect("only the root has no page"));
            prefix.len += common;
            self.touch(child);
            if common < KvPage::TOKENS {
                break;
            }
            node = child;
        }
        prefix
    }

    /// Up to `most` tokens that followed these in a sequence that has ended: of several, in the one
    /// that was used last.
    pub fn following(&self, tokens: &[u32], most: usize) -> Vec<u32> {
        let (mut node, mut at) = (ROOT, 0);
        let mut following = Vec::new();
        loop {
            let fits = |child: &&usize| {
                let page = &self.node(**child).tokens;
                common(page, &tokens[at..]) == page.len().min(tokens.len() - at)
            };
            let children = self.node(node).children.iter().filter(fits);
            let Some(child) = children.max_by_key(|child| self.node(**child).used) else {
                return following;
            };
            let page = &self.node(*child).tokens;
            let new = &page[page.len().min(tokens.len() - at)..];
            following.extend(new.iter().take(most - following.len()));
            (node, at) = (*child, tokens.len().min(at + page.len()));
            if following.len() == most {
                return following;
            }
        }
    }

    /// Keeps the pages of a sequence that has ended.
    pub fn insert(&mut self, cache: &KvCache) {
        let mut node = ROOT;
        for (index, tokens) in cache.tokens().chunks(KvPage::TOKENS).enumerate() {
            let closest = self.closest(node, tokens);
            node = match closest {
                // The node has these tokens, and perhaps more.
                Some((child, common)) if common == tokens.len() => child,
                // The node has fewer, and then these follow: the page takes its place.
                Some((child, common)) if common == self.node(child).tokens.len() => {
                    self.replace(child, tokens, cache.page(index));
                    child
                }
                _ => self.add(node, tokens, cache.page(index)),
            };
            self.touch(node);
        }
    }

    /// Gives up the page that was not used for the longest time, of those that no cache has.
    /// Returns whether there was one.
    pub fn evict(&mut self) -> bool {
        let is_free = |index: usize| {
            let page = self.node(index).page.as_ref();
            page.is_some_and(|page| !page.is_shared())
        };
        let oldest = self.leaves.iter().map(|(_, index)| *index);
        let Some(leaf) = oldest.into_iter().find(|index| is_free(*index)) else {
            return false;
        };
        self.remove(leaf);
        true
    }

    /// Pages that [`Tree::evict`] can give up, one after the other.
    pub fn evictable(&self) -> usize {
        let pages = self.nodes.iter().flatten().filter_map(|n| n.page.as_ref());
        pages.filter(|page| !page.is_shared()).count()
    }

    /// Pages in the tree.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len() - 1 // the root has none
    }

    /// The child whose tokens have the longest beginning in common with `tokens`, and how long it
    /// is; `None` if no child has the first token.
    fn closest(&self, node: usize, tokens: &[u32]) -> Option<(usize, usize)> {
        let children = self.node(node).children.iter();
        let common = children.map(|child| (*child, common(&self.node(*child).tokens, tokens)));
        let longest = common.max_by_key(|(_, common)| *common);
        longest.filter(|(_, common)| *common > 0)
    }

    fn add(&mut self, parent: usize, tokens: &[u32], page: Option<KvPage>) -> usize {
        let node = Node {
            parent,
            tokens: tokens.into(),
            page,
            children: Vec::new(),
            used: 0,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.nodes[index] = Some(node);
                index
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        };
        let used = self.node(parent).used;
        self.leaves.remove(&(used, parent));
        self.node_mut(parent).children.push(index);
        self.leaves.insert((0, index));
        index
    }

    fn replace(&mut self, index: usize, tokens: &[u32], page: Option<KvPage>) {
        let node = self.node_mut(index);
        node.tokens = tokens.into();
        node.page = page;
    }

    fn remove(&mut self, leaf: usize) {
        let node = self.nodes[leaf].take().expect("the leaf is there");
        self.free.push(leaf);
        self.leaves.remove(&(node.used, leaf));
        let parent = self.node_mut(node.parent);
        parent.children.retain(|child| *child != leaf);
        if parent.children.is_empty() && node.parent != ROOT {
            let used = parent.used;
            self.leaves.insert((used, node.parent));
        }
    }

    fn touch(&mut self, index: usize) {
        self.uses += 1;
        let uses = self.uses;
        let node = self.node_mut(index);
        let before = std::mem::replace(&mut node.used, uses);
        if self.leaves.remove(&(before, index)) {
            self.leaves.insert((uses, index));
        }
    }

    fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().expect("links lead to nodes")
    }

    fn node_mut(&mut self, index: usize) -> &mut Node {
        self.nodes[index].as_mut().expect("links lead to nodes")
    }
}

/// How many tokens two sequences begin with in common.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
