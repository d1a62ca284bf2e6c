//! How long a chain of names can get.
//!
//! A compiler that follows each name once, where it first meets it, goes no deeper than the longest way
//! through the names. Names that lead back to each other count together, each once: in whichever order
//! they are met, the way is no longer than that.

/// The largest sum of `weights` on a way along `edges`, where nodes in a circle all lie on it.
pub(super) fn longest(weights: &[usize], edges: &[Vec<usize>]) -> usize {
    let mut backward = vec![Vec::new(); edges.len()];
    for (from, targets) in edges.iter().enumerate() {
        for to in targets {
            backward[*to].push(from);
        }
    }
    // Kosaraju: the last node to be left leads a circle that no later circle leads to.
    let mut left = Vec::new();
    let mut seen = vec![false; edges.len()];
    for node in 0..edges.len() {
        visit(node, edges, &mut seen, &mut left);
    }
    let mut best = vec![0; edges.len()];
    let mut longest = 0;
    let mut seen = vec![false; edges.len()];
    for node in left.into_iter().rev() {
        let mut circle = Vec::new();
        visit(node, &backward, &mut seen, &mut circle);
        let before = circle.iter().map(|node| best[*node]).max().unwrap_or(0);
        let way = before + circle.iter().map(|node| weights[*node]).sum::<usize>();
        longest = longest.max(way);
        for to in circle.iter().flat_map(|node| &edges[*node]) {
            best[*to] = best[*to].max(way);
        }
    }
    longest
}

/// Adds all nodes that `node` leads to and that were not seen, each after those it leads to.
fn visit(node: usize, edges: &[Vec<usize>], seen: &mut [bool], left: &mut Vec<usize>) {
    let mut open = Vec::new();
    if !std::mem::replace(&mut seen[node], true) {
        open.push((node, edges[node].iter()));
    }
    while let Some((node, targets)) = open.last_mut() {
        match targets.next() {
            Some(to) if std::mem::replace(&mut seen[*to], true) => {}
            Some(to) => open.push((*to, edges[*to].iter())),
            None => {
                left.push(*node);
                open.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::longest;

    #[track_caller]
    fn check(weights: &[usize], edges: &[(usize, usize)], want: usize) {
        let mut lists = vec![Vec::new(); weights.len()];
        for (from, to) in edges {
            lists[*from].push(*to);
        }
        assert_eq!(longest(weights, &lists), want);
    }

    #[test]
    fn the_longer_way_counts() {
        check(&[], &[], 0);
        check(&[1, 1, 1], &[], 1);
        check(&[1, 1, 1], &[(0, 1), (1, 2), (0, 2)], 3);
        check(&[1, 5, 1, 1], &[(0, 1), (0, 2), (2, 3)], 6);
        check(&[1, 1, 1, 1], &[(3, 2), (2, 1), (1, 0)], 4);
    }

    #[test]
    fn a_circle_counts_whole() {
        check(&[2], &[(0, 0)], 2);
        check(&[1, 1, 1, 1], &[(0, 1), (1, 2), (2, 1), (2, 3)], 4);
        check(&[1, 2, 3, 4], &[(0, 1), (1, 0), (2, 3), (3, 2)], 7);
    }
}
