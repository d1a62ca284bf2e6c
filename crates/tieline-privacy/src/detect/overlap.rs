//! One finding for each place: the most specific.

use super::entity::Entity;
use super::text::Candidate;

/// Findings in order, none of which overlaps another.
///
/// The most specific wins, then the longest, then the first. What sticks out of a beaten term of the user's stays
/// a finding, since the user asked for all of it.
pub(super) fn settle(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by(|one, other| {
        let key = |found: &Candidate| (found.range.start, std::cmp::Reverse(found.range.end));
        key(one).cmp(&key(other))
    });
    candidates.dedup();
    let mut settled: Vec<Candidate> = Vec::with_capacity(candidates.len());
    let mut cluster = Vec::new();
    let mut end = 0;
    for found in candidates {
        if found.range.start >= end {
            settle_cluster(&mut cluster, &mut settled);
        }
        end = end.max(found.range.end);
        cluster.push(found);
    }
    settle_cluster(&mut cluster, &mut settled);
    settled
}

/// Settles candidates that hang together, and empties the cluster.
fn settle_cluster(cluster: &mut Vec<Candidate>, settled: &mut Vec<Candidate>) {
    if cluster.len() < 2 {
        settled.append(cluster);
        return;
    }
    cluster.sort_by_key(|found| {
        (rank(found.entity), std::cmp::Reverse(found.range.len()), found.range.start)
    });
    // By where they start: neighbours tell whether a place is taken.
    let mut kept: std::collections::BTreeMap<usize, Candidate> = std::collections::BTreeMap::new();
    for found in cluster.drain(..) {
        let before = kept.range(..found.range.end).next_back();
        let taken = before.is_some_and(|(_, before)| before.range.end > found.range.start);
        if !taken {
            kept.insert(found.range.start, found);
        } else if found.entity == Entity::Term {
            let pieces = uncovered(&kept, &found);
            kept.extend(pieces.into_iter().map(|piece| (piece.range.start, piece)));
        }
    }
    settled.extend(kept.into_values());
}

/// The parts of `found` that nothing of `kept` covers.
fn uncovered(
    kept: &std::collections::BTreeMap<usize, Candidate>,
    found: &Candidate,
) -> Vec<Candidate> {
    let mut pieces = Vec::new();
    let mut start = found.range.start;
    let first = kept.range(..=start).next_back().map(|(_, before)| before);
    let inside = kept.range(start + 1..found.range.end).map(|(_, other)| other);
    for other in first.into_iter().chain(inside) {
        if other.range.start > start {
            pieces.push(Candidate { range: start..other.range.start, entity: found.entity });
        }
        start = start.max(other.range.end);
    }
    if start < found.range.end {
        pieces.push(Candidate { range: start..found.range.end, entity: found.entity });
    }
    pieces
}

/// The lower, the more specific.
fn rank(entity: Entity) -> u8 {
    match entity {
        Entity::PrivateKey => 0,
        Entity::ConnectionString => 1,
        Entity::CredentialUrl => 2,
        Entity::Jwt => 3,
        Entity::ApiKey => 4,
        Entity::GitIdentity => 5,
        Entity::Email => 6,
        Entity::Iban => 7,
        Entity::BirthDate => 8,
        Entity::NationalId => 9,
        Entity::Card => 10,
        Entity::MacAddress => 11,
        Entity::Coordinates => 12,
        Entity::IpAddress => 13,
        Entity::PostalAddress => 14,
        Entity::Phone => 15,
        Entity::Secret => 16,
        Entity::Path => 17,
        Entity::Term => 18,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(candidates: &[(Entity, usize, usize)], want: &[(Entity, usize, usize)]) {
        let given = candidates
            .iter()
            .map(|(entity, start, end)| Candidate { range: *start..*end, entity: *entity });
        let settled = settle(given.collect());
        let found: Vec<_> = settled
            .iter()
            .map(|found| (found.entity, found.range.start, found.range.end))
            .collect();
        assert_eq!(found, want);
    }

    #[test]
    fn the_most_specific_wins() {
        use Entity::{Card, Email, GitIdentity, Phone, Term};
        check(&[(Phone, 0, 12), (Card, 0, 16)], &[(Card, 0, 16)]);
        check(&[(Email, 6, 12), (GitIdentity, 0, 13)], &[(GitIdentity, 0, 13)]);
        check(&[(Phone, 0, 9), (Phone, 5, 15)], &[(Phone, 5, 15)]);
        check(&[(Term, 0, 9), (Email, 5, 15)], &[(Term, 0, 5), (Email, 5, 15)]);
        check(&[(Email, 3, 5), (Term, 0, 9)], &[(Term, 0, 3), (Email, 3, 5), (Term, 5, 9)]);
        check(&[(Card, 5, 9), (Card, 0, 3)], &[(Card, 0, 3), (Card, 5, 9)]);
    }
}
