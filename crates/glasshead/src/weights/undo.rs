//! What converters do to tensors on their way into a GGUF file, and back.

/// Where a tensor of a GGUF file comes from, and what has to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its name in the file.
    pub name: String,
    /// What the converter did to it.
    pub undo: Undo,
}

/// What a converter did to a tensor; undone, it is again what the authors of the model published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Nothing.
    Nothing,
    /// Rows of each of so many heads were put in the order 0, n/2, 1, n/2 + 1, …: positions then turn
    /// neighbours instead of halves.
    Interleaved {
        /// The heads.
        heads: usize,
    },
    /// The matrix was transposed.
    Transposed,
    /// 1 was added to every number.
    Shifted,
}

impl Undo {
    /// The shape that a tensor has afterwards.
    pub(super) fn shape(self, found: &[usize]) -> Vec<usize> {
        let mut shape = found.to_vec();
        if self == Self::Transposed {
            shape.reverse();
        }
        shape
    }

    /// The numbers of shape `found` as they were before; `None` if the rows are no whole number of heads, each
    /// of pairs.
    pub(super) fn apply(self, mut numbers: Vec<f32>, found: &[usize]) -> Option<Vec<f32>> {
        let rows = found.first().copied().unwrap_or(1);
        let width = numbers.len().checked_div(rows)?;
        match self {
            Self::Nothing => Some(numbers),
            Self::Shifted => {
                numbers.iter_mut().for_each(|number| *number -= 1.0);
                Some(numbers)
            }
            Self::Transposed => {
                let mut before = Vec::with_capacity(numbers.len());
                for column in 0..width {
                    before.extend(numbers.iter().skip(column).step_by(width));
                }
                Some(before)
            }
            Self::Interleaved { heads } => {
                let head = rows.checked_div(heads)?;
                if head * heads != rows || !head.is_multiple_of(2) {
                    return None;
                }
                let mut before = Vec::with_capacity(numbers.len());
                for head in numbers.chunks_exact(head * width) {
                    // First the even rows, which were the first half, then the odd ones.
                    let rows = || head.chunks_exact(width);
                    before.extend(rows().step_by(2).chain(rows().skip(1).step_by(2)).flatten());
                }
                Some(before)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|n| n as f32).collect()
    }

    #[test]
    fn interleaving_is_undone_head_by_head() {
        // Rows 0..8 of two heads, interleaved as converters do: 0 2 1 3, 4 6 5 7; two numbers each.
        let order = [0, 2, 1, 3, 4, 6, 5, 7];
        let stored: Vec<f32> =
            order.iter().flat_map(|row| [2 * row, 2 * row + 1]).map(|n| n as f32).collect();
        let undo = Undo::Interleaved { heads: 2 };
        assert_eq!(undo.apply(stored, &[8, 2]), Some(numbers(16)));
        assert_eq!(
            undo.apply(vec![0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0], &[8]),
            Some(numbers(8)),
            "a bias"
        );
    }

    #[test]
    fn heads_that_do_not_fit_are_told() {
        assert_eq!(Undo::Interleaved { heads: 2 }.apply(numbers(6), &[6]), None);
        assert_eq!(Undo::Interleaved { heads: 4 }.apply(numbers(6), &[6]), None);
        assert_eq!(Undo::Interleaved { heads: 0 }.apply(numbers(6), &[6]), None);
        assert_eq!(Undo::Interleaved { heads: 9 }.apply(numbers(6), &[6]), None);
    }

    #[test]
    fn transposed_and_shifted() {
        assert_eq!(Undo::Transposed.shape(&[2, 3]), [3, 2]);
        assert_eq!(Undo::Transposed.apply(numbers(6), &[2, 3]), Some(vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        assert_eq!(Undo::Shifted.apply(vec![1.0, 0.5], &[2]), Some(vec![0.0, -0.5]));
    }
}
