//! Short stories about two people, with a state that must be tracked and a question about it.
//!
//! > Once Mia sat in the barn. Tom slept in the park. He found a red cup. He carried the cup to the
//! > barn. Mia felt glad. Tom handed the cup to Mia. Where is the cup? In the barn.
//!
//! Two opening sentences, three to six events, one question, its answer. An event is drawn in
//! steps, each uniform: who acts; what they do, among what the state allows; the verb; the object
//! or place. The rest follows from the state: a pronoun replaces the subject of the previous
//! sentence, a person takes along what they carry, and they can pick up only things that are in the
//! same place. All draws can be read off the text (a test does), so the entropies of the draws add
//! up to −log p(text).

use super::Page;
use super::words::{COLOURS, MOODS, NAMES, PLACES, THINGS, pronoun};

pub(super) const OPENINGS: [&str; 4] = ["sat", "slept", "stood", "was"];
const GO: [&str; 3] = ["ran", "walked", "went"];
const CARRY: [&str; 3] = ["brought", "carried", "took"];
const FEEL: [&str; 2] = ["felt", "was"];
pub(super) const FIND: [&str; 3] = ["bought", "found", "made"];
const TAKE: [&str; 3] = ["got", "grabbed", "took"];
const LEAVE: [&str; 3] = ["dropped", "hid", "left"];
const GIVE: [&str; 3] = ["gave", "handed", "threw"];

/// A story never has more things than this.
const MOST_THINGS: usize = 4;

/// The place of every person and every thing.
struct World {
    people: [Person; 2],
    things: Vec<Thing>,
    /// Nouns that are not in use yet.
    nouns: Vec<&'static str>,
    /// The subject of the last sentence, an index of `people`.
    subject: usize,
}

struct Person {
    name: usize,
    place: usize,
    /// An index of `things`.
    holds: Option<usize>,
}

struct Thing {
    noun: &'static str,
    colour: &'static str,
    /// Its place; `None` while somebody holds it.
    lies: Option<usize>,
}

#[derive(Clone, Copy)]
enum Event {
    Go,
    Feel,
    Find,
    Take,
    Leave,
    Give,
}

#[derive(Clone, Copy)]
enum Question {
    WherePerson(usize),
    WhereThing(usize),
    Who(usize),
    Colour(usize),
}

/// Writes one story.
pub(super) fn write(page: &mut Page) {
    let mut world = open(page);
    for _ in 0..3 + page.draws.below(4) {
        happen(page, &mut world);
    }
    ask(page, &world);
}

/// Introduces two people.
fn open(page: &mut Page) -> World {
    let mut names: Vec<usize> = (0..NAMES.len()).collect();
    let people = ["Once ", " "].map(|before| {
        let name = page.draws.take(&mut names);
        let verb = page.draws.pick(&OPENINGS);
        let place = page.draws.below(PLACES.len());
        page.put(&format!(
            "{before}{} {verb} in the {}.",
            NAMES[name], PLACES[place]
        ));
        Person {
            name,
            place,
            holds: None,
        }
    });
    World {
        people,
        things: Vec::new(),
        nouns: THINGS.to_vec(),
        subject: 1,
    }
}

/// Writes one event and updates the world.
fn happen(page: &mut Page, world: &mut World) {
    let who = page.draws.below(2);
    let person = &world.people[who];
    let subject = if who == world.subject {
        pronoun(person.name)
    } else {
        NAMES[person.name]
    };
    page.put(&format!(" {subject} "));
    world.subject = who;
    match page.draws.pick(&possible(world, who)) {
        Event::Go => go(page, world, who),
        Event::Feel => {
            let (verb, mood) = (page.draws.pick(&FEEL), page.draws.pick(&MOODS));
            page.put(&format!("{verb} {mood}."));
        }
        Event::Find => find(page, world, who),
        Event::Take => take(page, world, who),
        Event::Leave => leave(page, world, who),
        Event::Give => give(page, world, who),
    }
}

/// What a person can do now.
fn possible(world: &World, who: usize) -> Vec<Event> {
    let mut events = vec![Event::Go, Event::Feel];
    if world.people[who].holds.is_some() {
        events.push(Event::Leave);
        let other = &world.people[1 - who];
        if other.place == world.people[who].place && other.holds.is_none() {
            events.push(Event::Give);
        }
    } else {
        if world.things.len() < MOST_THINGS {
            events.push(Event::Find);
        }
        if !lying_near(world, who).is_empty() {
            events.push(Event::Take);
        }
    }
    events
}

/// The things in the place of a person.
fn lying_near(world: &World, who: usize) -> Vec<usize> {
    let here = Some(world.people[who].place);
    (0..world.things.len())
        .filter(|&thing| world.things[thing].lies == here)
        .collect()
}

fn go(page: &mut Page, world: &mut World, who: usize) {
    let person = &mut world.people[who];
    let verb = page
        .draws
        .pick(if person.holds.is_some() { &CARRY } else { &GO });
    let elsewhere = 1 + page.draws.below(PLACES.len() - 1);
    person.place = (person.place + elsewhere) % PLACES.len();
    let luggage = person
        .holds
        .map(|thing| format!("the {} ", world.things[thing].noun));
    let luggage = luggage.unwrap_or_default();
    page.put(&format!("{verb} {luggage}to the {}.", PLACES[person.place]));
}

fn find(page: &mut Page, world: &mut World, who: usize) {
    let verb = page.draws.pick(&FIND);
    let colour = page.draws.pick(&COLOURS);
    let noun = page.draws.take(&mut world.nouns);
    world.people[who].holds = Some(world.things.len());
    world.things.push(Thing {
        noun,
        colour,
        lies: None,
    });
    page.put(&format!("{verb} a {colour} {noun}."));
}

fn take(page: &mut Page, world: &mut World, who: usize) {
    let verb = page.draws.pick(&TAKE);
    let thing = page.draws.pick(&lying_near(world, who));
    world.people[who].holds = Some(thing);
    world.things[thing].lies = None;
    page.put(&format!("{verb} the {}.", world.things[thing].noun));
}

fn leave(page: &mut Page, world: &mut World, who: usize) {
    let verb = page.draws.pick(&LEAVE);
    let person = &mut world.people[who];
    let thing = person
        .holds
        .take()
        .expect("leaving is possible only for who holds something");
    world.things[thing].lies = Some(person.place);
    page.put(&format!("{verb} the {} there.", world.things[thing].noun));
}

fn give(page: &mut Page, world: &mut World, who: usize) {
    let verb = page.draws.pick(&GIVE);
    let thing = world.people[who].holds.take();
    let thing = thing.expect("giving is possible only for who holds something");
    let other = &mut world.people[1 - who];
    other.holds = Some(thing);
    page.put(&format!(
        "{verb} the {} to {}.",
        world.things[thing].noun, NAMES[other.name]
    ));
}

/// Asks one of the questions that make sense now, and answers it.
fn ask(page: &mut Page, world: &World) {
    let holder = |thing| {
        world
            .people
            .iter()
            .find(|person| person.holds == Some(thing))
    };
    let mut questions = vec![Question::WherePerson(0), Question::WherePerson(1)];
    for thing in 0..world.things.len() {
        questions.extend([Question::WhereThing(thing), Question::Colour(thing)]);
        questions.extend(holder(thing).map(|_| Question::Who(thing)));
    }
    let place = |thing: usize| {
        let carried_to = holder(thing).map(|person| person.place);
        carried_to
            .or(world.things[thing].lies)
            .expect("a thing is held or lies somewhere")
    };
    let noun = |thing: usize| world.things[thing].noun;
    let (question, answer) = match page.draws.pick(&questions) {
        Question::WherePerson(who) => {
            let Person { name, place, .. } = world.people[who];
            (
                format!(" Where is {}?", NAMES[name]),
                format!(" In the {}.", PLACES[place]),
            )
        }
        Question::WhereThing(thing) => {
            let place = PLACES[place(thing)];
            (
                format!(" Where is the {}?", noun(thing)),
                format!(" In the {place}."),
            )
        }
        Question::Who(thing) => {
            let name = NAMES[holder(thing).expect("asked only about held things").name];
            (
                format!(" Who has the {}?", noun(thing)),
                format!(" {name}."),
            )
        }
        Question::Colour(thing) => {
            let colour = world.things[thing].colour;
            (
                format!(" What colour is the {}?", noun(thing)),
                format!(" It is {colour}."),
            )
        }
    };
    page.put(&question);
    page.answer(&answer);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::super::{Split, Task, document};
    use super::*;

    /// A second, independent account of a story, from its text alone: it tracks the state in words,
    /// sums −log p of what it reads, and answers the question itself.
    #[derive(Default)]
    struct Reader<'a> {
        people: Vec<&'a str>,
        place: BTreeMap<&'a str, &'a str>, // person or lying thing → place
        holder: BTreeMap<&'a str, &'a str>, // held thing → person
        colour: BTreeMap<&'a str, &'a str>, // thing → colour
        nats: f64,
    }

    impl<'a> Reader<'a> {
        fn pay(&mut self, choices: usize) {
            self.nats += (choices as f64).ln();
        }

        fn held_by(&self, person: &str) -> Option<&'a str> {
            self.holder
                .iter()
                .find(|(_, holder)| **holder == person)
                .map(|(thing, _)| *thing)
        }

        fn lying_at(&self, place: &str) -> usize {
            self.place
                .iter()
                .filter(|(k, v)| **v == place && self.colour.contains_key(*k))
                .count()
        }

        fn open(&mut self, sentence: &'a str) {
            let words: Vec<&str> = sentence.split(' ').collect();
            let [name, verb, "in", "the", place] = words[..] else {
                panic!("{sentence}")
            };
            assert!(OPENINGS.contains(&verb) && PLACES.contains(&place));
            self.pay(24 - self.people.len());
            self.pay(4);
            self.pay(12);
            self.people.push(name);
            self.place.insert(name, place);
        }

        fn event(&mut self, who: &'a str, words: &[&'a str]) {
            let other = self.people[usize::from(self.people[0] == who)];
            let (here, held) = (self.place[who], self.held_by(who));
            let lying = self.lying_at(here);
            let can_give = self.place[other] == here && self.held_by(other).is_none();
            let events = match held {
                Some(_) => 3 + usize::from(can_give),
                None => 2 + usize::from(self.colour.len() < 4) + usize::from(lying > 0),
            };
            self.pay(2);
            self.pay(events);
            match *words {
                ["ran" | "walked" | "went", "to", "the", place] => {
                    assert!(held.is_none() && place != here);
                    self.pay(3 * 11);
                    self.place.insert(who, place);
                }
                [
                    "brought" | "carried" | "took",
                    "the",
                    thing,
                    "to",
                    "the",
                    place,
                ] => {
                    assert!(held == Some(thing) && place != here);
                    self.pay(3 * 11);
                    self.place.insert(who, place);
                }
                ["felt" | "was", mood] => {
                    assert!(MOODS.contains(&mood));
                    self.pay(2 * 12);
                }
                ["bought" | "found" | "made", "a", colour, thing] => {
                    assert!(held.is_none() && !self.colour.contains_key(thing));
                    self.pay(3 * 12 * (24 - self.colour.len()));
                    self.colour.insert(thing, colour);
                    self.holder.insert(thing, who);
                }
                ["got" | "grabbed" | "took", "the", thing] => {
                    assert!(held.is_none() && self.place.remove(thing) == Some(here));
                    self.pay(3 * lying);
                    self.holder.insert(thing, who);
                }
                ["dropped" | "hid" | "left", "the", thing, "there"] => {
                    assert_eq!(self.holder.remove(thing), Some(who));
                    self.pay(3);
                    self.place.insert(thing, here);
                }
                ["gave" | "handed" | "threw", "the", thing, "to", receiver] => {
                    assert!(can_give && held == Some(thing) && receiver == other);
                    self.pay(3);
                    self.holder.insert(thing, other);
                }
                _ => panic!("{words:?}"),
            }
        }

        fn answer(&mut self, question: &str) -> String {
            self.pay(2 + 2 * self.colour.len() + self.holder.len());
            let words: Vec<&str> = question.split(' ').collect();
            match words[..] {
                ["Where", "is", "the", thing] => {
                    let at = self.holder.get(thing).unwrap_or(&thing);
                    format!("In the {}.", self.place[at])
                }
                ["Where", "is", person] => format!("In the {}.", self.place[person]),
                ["Who", "has", "the", thing] => format!("{}.", self.holder[thing]),
                ["What", "colour", "is", "the", thing] => format!("It is {}.", self.colour[thing]),
                _ => panic!("{question}"),
            }
        }
    }

    /// Reads a story; returns −log p and whether the answer in the text is right.
    fn read(text: &str) -> (f64, bool) {
        let (told, answer) = text.split_once("? ").unwrap();
        let (story, question) = told.rsplit_once(". ").unwrap();
        let sentences: Vec<&str> = story.strip_prefix("Once ").unwrap().split(". ").collect();
        let mut reader = Reader::default();
        reader.open(sentences[0]);
        reader.open(sentences[1]);
        assert!((5..=8).contains(&sentences.len()));
        reader.pay(4);
        let mut subject = reader.people[1];
        for sentence in &sentences[2..] {
            let words: Vec<&str> = sentence.split(' ').collect();
            let is_woman = NAMES[..12].contains(&subject);
            let who = match words[0] {
                word @ ("She" | "He") => {
                    assert_eq!(word, if is_woman { "She" } else { "He" });
                    subject
                }
                name => {
                    assert_ne!(name, subject, "the same subject again is a pronoun");
                    reader
                        .people
                        .iter()
                        .copied()
                        .find(|person| *person == name)
                        .unwrap()
                }
            };
            reader.event(who, &words[1..]);
            subject = who;
        }
        let right = reader.answer(question) == answer;
        (reader.nats, right)
    }

    #[test]
    fn answers_and_entropy_agree_with_a_reader_of_the_text_alone() {
        for split in [Split::Train, Split::HeldOut] {
            for index in 0..5000 {
                let document = document(Task::Stories, 11, index, split);
                let (nats, right) = read(&document.text);
                assert!(right, "{}", document.text);
                assert!((nats - document.entropy).abs() < 1e-9, "{}", document.text);
            }
        }
    }

    #[test]
    fn every_question_is_asked_and_no_answer_dominates() {
        let mut answers: HashMap<String, usize> = HashMap::new();
        for index in 0..4000 {
            let document = document(Task::Stories, 0, index, Split::Train);
            let answer = &document.text[document.answers[0].clone()];
            *answers.entry(answer.to_owned()).or_default() += 1;
        }
        assert_eq!(answers.len(), PLACES.len() + NAMES.len() + COLOURS.len());
        assert!(answers.values().all(|&n| n < 400), "{answers:?}");
    }

    #[test]
    fn entropy_per_word_is_that_of_varied_text() {
        let documents = (0..2000).map(|i| document(Task::Stories, 0, i, Split::Train));
        let (nats, words) = documents.fold((0.0, 0), |(nats, words), document| {
            (
                nats + document.entropy,
                words + document.text.split(' ').count(),
            )
        });
        let per_word = nats / words as f64;
        assert!((0.6..1.2).contains(&per_word), "{per_word} nats a word");
    }
}
