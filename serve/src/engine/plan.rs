//! Which sequences get how many tokens of the next step.
//!
//! Every sequence with one token left gets it: it is an answer in progress, or the end of a prompt.
//! What is left of the step goes to prompts. Between keys, the one that was served least for its
//! weight comes first. Within a key, steps alternate between the prompt with the fewest tokens left
//! and the oldest one: so a short question does not wait for a book, and the book goes on.

/// A sequence, as the plan sees it. Sequences are in the order of their arrival.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Tokens that are not computed.
    pub left: usize,
    /// Index of the key.
    pub key: usize,
    /// The earlier sequence that computes tokens which both begin with; this one waits for it.
    pub waits_for: Option<usize>,
    /// Most tokens that it can use at once.
    pub most: usize,
    /// The client does not read: nothing is computed.
    pub is_parked: bool,
}

/// Tokens for each sequence, 0 for none.
///
/// `room` tokens of prompts fit, of which one prompt gets at least `least`. `served` says for each
/// key what it has had for its weight; `turn` counts steps.
pub fn plan(views: &[View], room: usize, least: usize, served: &[f64], turn: u64) -> Vec<usize> {
    let mut tokens = vec![0; views.len()];
    for (tokens, view) in tokens.iter_mut().zip(views) {
        *tokens = usize::from(view.left == 1 && !view.is_parked && view.waits_for.is_none());
    }
    let mut open: Vec<usize> = (0..views.len())
        .filter(|i| views[*i].left > 1 && !views[*i].is_parked)
        .collect();
    let mut room = room.max(least);
    while room > 0 && !open.is_empty() {
        let key = |i: &usize| views[*i].key;
        let least_served = open.iter().map(key);
        let least_served = least_served.min_by(|a, b| served[*a].total_cmp(&served[*b]));
        let of_key = open.iter().filter(|i| Some(key(i)) == least_served);
        let chosen = match turn % 2 {
            0 => of_key.min_by_key(|i| (views[**i].left, **i)),
            _ => of_key.min(),
        };
        let chosen = *chosen.expect("some prompt has the key");
        // A prompt that waits for another gives its turn to that one.
        let leader = leader(views, chosen);
        if tokens[leader] == 0 && !views[leader].is_parked {
            let view = &views[leader];
            tokens[leader] = room.min(view.left).min(view.most);
            room -= tokens[leader];
        }
        open.retain(|i| *i != chosen && *i != leader);
    }
    tokens
}

/// The sequence that computes what this one needs next.
fn leader(views: &[View], mut index: usize) -> usize {
    // Each waits for an earlier one, so this ends.
    while let Some(earlier) = views[index].waits_for {
        index = earlier;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(left: usize) -> View {
        View {
            left,
            key: 0,
            waits_for: None,
            most: 256,
            is_parked: false,
        }
    }

    #[test]
    fn answers_come_first_and_prompts_share_the_rest() {
        let views = [view(1), view(500), view(1), view(20)];
        assert_eq!(plan(&views, 50, 8, &[0.0], 0), [1, 30, 1, 20]);
        assert_eq!(plan(&views, 50, 8, &[0.0], 1), [1, 50, 1, 0]);
        // A step without room still moves one prompt.
        assert_eq!(plan(&views, 0, 8, &[0.0], 1), [1, 8, 1, 0]);
        assert_eq!(plan(&views, 10_000, 8, &[0.0], 1), [1, 256, 1, 20]);
    }

    #[test]
    fn the_key_that_had_least_comes_first() {
        let of_key = |left, key| View { key, ..view(left) };
        let views = [of_key(400, 0), of_key(400, 0), of_key(300, 1)];
        assert_eq!(plan(&views, 100, 8, &[5.0, 4.0], 1), [0, 0, 100]);
        assert_eq!(plan(&views, 100, 8, &[4.0, 5.0], 1), [100, 0, 0]);
    }

    #[test]
    fn a_prompt_that_waits_helps_the_one_it_waits_for() {
        let waiting = View {
            waits_for: Some(0),
            ..view(30)
        };
        assert_eq!(plan(&[view(400), waiting], 50, 8, &[0.0], 0), [50, 0]);
        let one = View {
            waits_for: Some(0),
            ..view(1)
        };
        assert_eq!(plan(&[view(400), one], 50, 8, &[0.0], 0), [50, 0]);
    }

    #[test]
    fn nothing_is_computed_for_clients_that_do_not_read() {
        let parked = |left| View {
            is_parked: true,
            ..view(left)
        };
        let waiting = View {
            waits_for: Some(1),
            ..view(30)
        };
        let views = [parked(1), parked(90), waiting, view(40)];
        assert_eq!(plan(&views, 50, 8, &[0.0], 0), [0, 0, 0, 40]);
    }
}
