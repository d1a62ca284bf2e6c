use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits { queue: 300, texts: 16, tokens: 512 }
}

fn order(id: u64, owner: &str, class: Class, texts: usize) -> Order {
    Order { id: RequestId(id), class, owner: Owner(owner.to_owned()), texts }
}

fn queue(limits: Limits, orders: &[Order]) -> Texts {
    let mut queue = Texts::new(limits);
    orders.iter().for_each(|order| queue.submit(order.clone()).unwrap());
    queue
}

/// The orders of the texts of the next batch, where all texts have so many tokens.
fn ids(queue: &mut Texts, tokens: usize) -> Vec<u64> {
    queue.batch(|_, _| Some(tokens)).iter().map(|text| text.id.0).collect()
}

use Class::{Batch, Interactive};

#[test]
fn one_text_does_not_wait_for_thousands_of_another_owner() {
    let mut queue = queue(limits(), &[order(1, "many", Interactive, 10_000)]);
    assert_eq!(ids(&mut queue, 10), [1; 16]);
    queue.submit(order(2, "one", Interactive, 1)).unwrap();
    // It starts level with the other, who had a text later.
    assert_eq!(ids(&mut queue, 10).iter().position(|id| *id == 2), Some(1));
}

#[test]
fn nor_for_thousands_of_its_own_owner() {
    let mut queue = queue(limits(), &[order(1, "", Interactive, 10_000)]);
    ids(&mut queue, 10);
    (2..5).for_each(|id| queue.submit(order(id, "", Interactive, 1)).unwrap());
    let batch = ids(&mut queue, 10);
    assert_eq!(batch[..5], [1, 2, 3, 4, 1]);
}

#[test]
fn orders_of_one_text_fill_a_batch_together() {
    let orders: Vec<Order> = (0..20).map(|id| order(id, &id.to_string(), Interactive, 1)).collect();
    let mut queue = queue(limits(), &orders);
    assert_eq!(ids(&mut queue, 10), (0..16).collect::<Vec<u64>>());
    assert_eq!(ids(&mut queue, 10), [16, 17, 18, 19]);
    assert_eq!((ids(&mut queue, 10), queue.waiting()), (Vec::new(), 0));
}

#[test]
fn a_batch_is_no_longer_than_it_may_be_and_a_longer_text_is_alone() {
    let orders = [order(1, "a", Interactive, 5)];
    let mut queue = queue(Limits { tokens: 100, ..limits() }, &orders);
    let mut sizes = Vec::new();
    let lengths = [40, 60, 1, 100, 120];
    while queue.waiting() > 0 {
        let batch = queue.batch(|_, number| Some(lengths[number]));
        sizes.push(batch.iter().map(|text| text.tokens).collect::<Vec<_>>());
    }
    assert_eq!(sizes, [vec![40, 60], vec![1], vec![100], vec![120]]);
}

#[test]
fn interactive_texts_go_before_batch_texts_but_not_for_ever() {
    let orders = [order(1, "patient", Batch, 50), order(2, "flood", Interactive, 1000)];
    let mut queue = queue(limits(), &orders);
    let all: Vec<u64> = (0..10).flat_map(|_| ids(&mut queue, 10)).collect();
    let every = usize::try_from(PASSED_OVER).unwrap() + 1;
    for (at, id) in all.iter().enumerate() {
        assert_eq!(*id, if at % every == every - 1 { 1 } else { 2 }, "{at}");
    }
    // Of a flood that is over nothing is owed to the next batch order.
    queue.remove(RequestId(1));
    queue.submit(order(3, "late", Batch, 1)).unwrap();
    assert_eq!(ids(&mut queue, 10)[..8], [2; 8]);
}

#[test]
fn owners_get_the_same_in_tokens_and_not_in_texts() {
    let orders = [order(1, "long", Interactive, 1000), order(2, "short", Interactive, 1000)];
    let mut queue = queue(limits(), &orders);
    let mut got: HashMap<RequestId, usize> = HashMap::new();
    for _ in 0..20 {
        for text in queue.batch(|id, _| Some(if id.0 == 1 { 100 } else { 10 })) {
            *got.entry(text.id).or_default() += text.tokens;
        }
        let [long, short] = [1, 2].map(|id| got.get(&RequestId(id)).copied().unwrap_or(0));
        assert!(long.abs_diff(short) <= 110, "{long} and {short}");
    }
}

#[test]
fn an_owner_with_more_orders_gets_no_more() {
    let mut orders = vec![order(0, "one", Interactive, 100)];
    orders.extend((1..10).map(|id| order(id, "many", Interactive, 100)));
    let mut queue = queue(limits(), &orders);
    let batch = ids(&mut queue, 10);
    assert_eq!(batch.iter().filter(|id| **id == 0).count(), 8, "{batch:?}");
}

#[test]
fn newcomers_keep_nobody_waiting_for_ever() {
    let mut queue = queue(limits(), &[order(0, "old", Interactive, 2)]);
    // It got much, beside somebody who got nothing: there is always a newcomer on his level.
    queue.submit(order(1, "least", Batch, 1)).unwrap();
    let one = Limits { texts: 1, ..limits() };
    queue.limits = one;
    assert_eq!(queue.batch(|_, _| Some(5000))[0].id.0, 0);
    let mut went = 0;
    for id in 2.. {
        queue.submit(order(id, &id.to_string(), Interactive, 1)).unwrap();
        match ids(&mut queue, 1)[..] {
            [0] => break,
            [_] => went += 1,
            _ => unreachable!(),
        }
    }
    assert!((OVERTAKEN / 2..=OVERTAKEN).contains(&went), "{went}");
}

#[test]
fn a_bad_text_takes_its_whole_order_with_it() {
    let orders = [order(1, "a", Interactive, 3), order(2, "b", Interactive, 3)];
    let mut queue = queue(limits(), &orders);
    let batch = queue.batch(|id, number| (id.0 == 2 || number < 1).then_some(10));
    let want = [0, 1, 2].map(|number| Text { id: RequestId(2), number, tokens: 10 });
    assert_eq!((batch, queue.waiting()), (want.to_vec(), 0));
}

#[test]
fn the_queue_is_bounded_and_an_id_is_taken_once() {
    let mut queue = Texts::new(Limits { queue: 2, ..limits() });
    queue.submit(order(1, "a", Interactive, 9)).unwrap();
    queue.submit(order(1, "b", Batch, 9)).unwrap();
    queue.submit(order(2, "a", Interactive, 9)).unwrap();
    let full = queue.submit(order(3, "b", Interactive, 9)).unwrap_err();
    assert_eq!(full, QueueFull { length: 2, wait: None });
    queue.submit(order(4, "c", Interactive, 0)).unwrap();
    assert_eq!(queue.waiting(), 2);
    queue.remove(RequestId(1));
    queue.submit(order(3, "b", Interactive, 9)).unwrap();
    queue.remove(RequestId(9));
    assert_eq!(queue.waiting(), 2);
}

#[test]
fn limits_of_nothing_still_let_one_through() {
    let mut queue =
        queue(Limits { queue: 0, texts: 0, tokens: 0 }, &[order(1, "a", Interactive, 2)]);
    assert_eq!(ids(&mut queue, 10), [1]);
    assert_eq!(ids(&mut queue, 10), [1]);
    assert_eq!(queue.waiting(), 0);
}

#[derive(Clone, Debug)]
enum Act {
    Submit {
        owner: u8,
        batch: bool,
        texts: usize,
    },
    Cancel(usize),
    /// Compute a batch.
    Step,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let texts = prop_oneof![3 => 0..4_usize, 1 => 1..120_usize];
    let submit = (0..4_u8, any::<bool>(), texts).prop_map(|(owner, batch, texts)| Act::Submit {
        owner,
        batch,
        texts,
    });
    let act =
        prop_oneof![3 => submit, 1 => (0..20_usize).prop_map(Act::Cancel), 4 => Just(Act::Step)];
    proptest::collection::vec(act, 0..60)
}

/// How long a text is: some are bad.
fn length(id: RequestId, number: usize, bad: u64) -> Option<usize> {
    let mix = (id.0 * 131 + number as u64 * 17) % 97;
    (mix >= bad).then_some(usize::try_from(mix).unwrap())
}

/// A model that computes what the queue says, and what it has made of each order.
struct Fake {
    queue: Texts,
    limits: Limits,
    /// Texts and those made, of orders that have not ended.
    live: BTreeMap<u64, (Order, usize)>,
    ended: Vec<u64>,
    bad: u64,
    /// Texts since each line had its last, while something of it waits.
    starving: HashMap<(Owner, Class), u32>,
    passed_over: u32,
}

impl Fake {
    fn submit(&mut self, order: Order) {
        let full = self.queue.waiting() >= self.limits.queue && order.texts > 0;
        assert_eq!(self.queue.submit(order.clone()).is_err(), full);
        if order.texts > 0 && !full {
            self.live.insert(order.id.0, (order, 0));
        }
    }

    /// Some have left: where no batch text waits any more, the next one to come was passed over by nobody.
    fn left(&mut self) {
        if !self.waits(Class::Batch) {
            self.passed_over = 0;
        }
    }

    fn waits(&self, class: Class) -> bool {
        self.live.values().any(|(order, _)| order.class == class)
    }

    fn step(&mut self) {
        let (bad, mut failed) = (self.bad, Vec::new());
        let batch = self.queue.batch(|id, number| {
            let length = length(id, number, bad);
            if length.is_none() {
                failed.push(id.0);
            }
            length
        });
        for id in failed {
            assert!(self.live.remove(&id).is_some(), "{id} failed twice");
            assert!(batch.iter().all(|text| text.id.0 != id));
        }
        self.left();
        let tokens: usize = batch.iter().map(|text| text.tokens).sum();
        assert!(batch.len() <= self.limits.texts.max(1));
        assert!(tokens <= self.limits.tokens || batch.len() == 1);
        assert_eq!(batch.is_empty(), self.live.is_empty(), "somebody waits and nothing is done");
        for text in batch {
            self.made(text);
        }
    }

    fn made(&mut self, text: Text) {
        let waits = self.waits(Class::Batch);
        let (order, made) = self.live.get_mut(&text.id.0).expect("a text of nobody");
        assert_eq!(text.number, *made, "out of order");
        assert_eq!(Some(text.tokens), length(text.id, text.number, self.bad));
        *made += 1;
        let line = (order.owner.clone(), order.class);
        self.passed_over =
            if line.1 == Class::Interactive && waits { self.passed_over + 1 } else { 0 };
        if *made == order.texts {
            self.live.remove(&text.id.0);
            self.ended.push(text.id.0);
        }
        let there: HashSet<(Owner, Class)> =
            self.live.values().map(|(order, _)| (order.owner.clone(), order.class)).collect();
        self.starving.retain(|one, _| there.contains(one) && *one != line);
        for one in there.into_iter().filter(|one| *one != line) {
            let texts = self.starving.entry(one).or_default();
            *texts += 1;
            // Overdue lines go one after the other.
            assert!(*texts <= OVERTAKEN + 8, "somebody starves");
        }
        // Overdue interactive lines may go before.
        assert!(self.passed_over <= PASSED_OVER + 4, "batch texts starve");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_order_ends_with_all_its_texts_in_order(
        acts in acts(),
        queue in 1..8_usize,
        texts in 1..17_usize,
        tokens in 1..400_usize,
        bad in 0..3_u64,
    ) {
        let limits = Limits { queue, texts, tokens };
        let mut fake = Fake {
            queue: Texts::new(limits),
            limits,
            live: BTreeMap::new(),
            ended: Vec::new(),
            bad,
            starving: HashMap::new(),
            passed_over: 0,
        };
        for (id, act) in (0..).zip(acts) {
            match act {
                Act::Submit { owner, batch, texts } => {
                    let class = if batch { Batch } else { Interactive };
                    fake.submit(order(id, &owner.to_string(), class, texts));
                }
                Act::Cancel(nth) => {
                    if let Some(id) = fake.live.keys().nth(nth).copied() {
                        fake.live.remove(&id);
                        fake.queue.remove(RequestId(id));
                        fake.left();
                    }
                }
                Act::Step => fake.step(),
            }
            prop_assert_eq!(fake.queue.waiting(), fake.live.len());
        }
        for _ in 0..100_000 {
            if fake.live.is_empty() { break }
            fake.step();
        }
        prop_assert!(fake.live.is_empty(), "somebody never ends");
        prop_assert_eq!(fake.queue.waiting(), 0);
        let mut ended = fake.ended.clone();
        ended.sort_unstable();
        ended.dedup();
        prop_assert_eq!(ended.len(), fake.ended.len(), "an order ended twice");
    }
}
