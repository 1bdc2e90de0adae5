//! Numbers that come query by query, written where they belong.

use std::ops::Range;

use super::{Array, Values};

/// At the place that they have in the end, as far as one is known, else in a list.
pub(crate) struct Column<'a, T> {
    place: &'a mut [T],
    list: Vec<T>,
}

impl<'a, T: Copy + Default> Column<'a, T> {
    pub(crate) fn new() -> Self {
        Self { place: &mut [], list: Vec::new() }
    }

    pub(crate) fn push(&mut self, x: T) {
        self.next(1)[0] = x;
    }

    /// So many numbers, one after the other.
    pub(crate) fn extend(&mut self, numbers: impl ExactSizeIterator<Item = T>) {
        self.next(numbers.len()).iter_mut().zip(numbers).for_each(|(to, x)| *to = x);
    }

    /// The numbers of some lanes, query by query, from where they stand lane by lane: `places [.., width]`.
    #[inline]
    pub(crate) fn extend_lanes<N: Copy>(
        &mut self,
        places: &[N],
        width: usize,
        lanes: Range<usize>,
        to: impl Fn(N) -> T,
    ) {
        let count = places.len() / width;
        let queries = self.next(lanes.len() * count);
        for (at, place) in places.chunks_exact(width).enumerate() {
            for (query, x) in queries.chunks_exact_mut(count).zip(&place[lanes.clone()]) {
                query[at] = to(*x);
            }
        }
    }

    /// The next numbers, to be written.
    fn next(&mut self, count: usize) -> &mut [T] {
        if let Some(place) = self.place.split_off_mut(..count) {
            return place;
        }
        let from = self.list.len();
        self.list.resize(from + count, T::default());
        &mut self.list[from..]
    }

    /// What stands in the list.
    ///
    /// # Panics
    /// When some of the place is left over.
    pub(crate) fn into_list(self) -> Vec<T> {
        assert_eq!(self.place.len(), 0, "every query has been seen");
        self.list
    }
}

/// The places of an array that are not yet given away, or of a column in it, `[queries, …]`.
pub(crate) enum Slots<'a> {
    F32(&'a mut [f32]),
    I64(&'a mut [i64]),
}

/// Numbers that an array can hold.
pub(crate) trait Placed: Sized {
    /// The places, if they are for such numbers.
    fn of<'a>(slots: Slots<'a>) -> Option<&'a mut [Self]>;
}

impl Placed for f32 {
    fn of<'a>(slots: Slots<'a>) -> Option<&'a mut [f32]> {
        match slots {
            Slots::F32(place) => Some(place),
            Slots::I64(_) => None,
        }
    }
}

impl Placed for i64 {
    fn of<'a>(slots: Slots<'a>) -> Option<&'a mut [i64]> {
        match slots {
            Slots::I64(place) => Some(place),
            Slots::F32(_) => None,
        }
    }
}

impl<'a, T: Placed> Column<'a, T> {
    /// From now on numbers go to the next of these.
    pub(crate) fn fill(&mut self, slots: &mut dyn Iterator<Item = Slots<'a>>) {
        if let Some(place) = slots.next().and_then(T::of) {
            self.place = place;
        }
    }
}

impl<'a> Slots<'a> {
    /// All of an array, whose numbers are 0 until they come.
    pub(crate) fn all(array: &'a mut Array) -> Self {
        let count = array.shape.iter().product();
        match &mut array.values {
            Values::F32(values) => {
                *values = vec![0.0; count];
                Self::F32(values)
            }
            Values::I64(values) => {
                *values = vec![0; count];
                Self::I64(values)
            }
        }
    }

    /// Gives away the first `count` places.
    pub(crate) fn take(&mut self, count: usize) -> Self {
        match self {
            Self::F32(left) => Self::F32(left.split_off_mut(..count).unwrap_or_default()),
            Self::I64(left) => Self::I64(left.split_off_mut(..count).unwrap_or_default()),
        }
    }
}
