//! One module of a LoRA file: its form is found from the tensors it has, and checked to be consistent by their shapes.

use std::collections::BTreeMap;

use super::form::{Form, Matrix, Side};
use super::names::Part;

/// The most rows or columns between two factors. Published files have 1 to 256, extracted ones up to 1024.
const MAX_RANK: usize = 8192;

/// A tensor of the file and the shape that it is read in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: String,
    pub(super) shape: Vec<usize>,
}

/// The tensors of one module by what they are: key and shape.
pub(super) type Parts = BTreeMap<Part, Place>;

/// What a module does, before anything of it is read.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub(super) form: Form<Place>,
    /// The matrix that it makes: outputs, and inputs · kernel elements. None where it goes by the layer's own.
    pub(super) size: Option<(usize, usize)>,
    /// The number that alpha is divided by; None where the form has none.
    pub(super) rank: Option<usize>,
    /// Lengths of DoRA, and whether they are of the outputs for certain.
    pub(super) magnitude: Option<(Place, bool)>,
    pub(super) alpha: Option<Place>,
    pub(super) bias: Option<Place>,
    /// Whether the bias is multiplied by alpha / rank as `lora_B`'s is.
    pub(super) bias_scales: bool,
    pub(super) on_input: Option<Place>,
    /// Tensors of it that its form has no use for.
    pub(super) idle: Vec<String>,
}

/// Takes a module's tensors together. None where they make nothing: a half is missing, or shapes do not fit each other.
pub(super) fn assemble(mut parts: Parts) -> Option<Module> {
    let is_number = |place: &Place| count(place) == Some(1);
    let alpha = take_if(&mut parts, Part::Alpha, is_number);
    let magnitude = match (parts.remove(&Part::Magnitude), parts.remove(&Part::DoraScale)) {
        (Some(lengths), _) => Some((lengths, true)),
        (None, Some(lengths)) => Some((lengths, false)),
        (None, None) => None,
    };
    let (bias, bias_scales) = match parts.remove(&Part::BiasDifference) {
        Some(bias) => (Some(bias), false),
        None => (parts.remove(&Part::UpBias), true),
    };
    let (form, size, rank) =
        main_form(&mut parts).or_else(|| bias.is_some().then_some((Form::Nothing, None, None)))?;
    let is_scaling = matches!(form, Form::Scaling { .. });
    let on_input = take_if(&mut parts, Part::OnInput, |place| is_scaling && is_number(place));
    // Lengths are those of a difference.
    let (magnitude, useless) = match magnitude {
        Some((lengths, _)) if size.is_none() => (None, Some(lengths.key)),
        magnitude => (magnitude, None),
    };
    Some(Module {
        form,
        size,
        rank,
        magnitude,
        alpha,
        bias,
        bias_scales,
        on_input,
        idle: parts
            .into_values()
            .map(|place| place.key)
            .chain(useless)
            .collect(),
    })
}

/// Takes a part out where it is as it should be.
fn take_if(parts: &mut Parts, part: Part, is_good: impl Fn(&Place) -> bool) -> Option<Place> {
    let is_good = parts.get(&part).is_some_and(is_good);
    is_good.then(|| parts.remove(&part)).flatten()
}

/// Form, size and rank.
type Found = (Form<Place>, Option<(usize, usize)>, Option<usize>);

fn main_form(parts: &mut Parts) -> Option<Found> {
    if parts.contains_key(&Part::Up) && parts.contains_key(&Part::Down) {
        let (up, down) = (parts.remove(&Part::Up)?, parts.remove(&Part::Down)?);
        let side = match parts.remove(&Part::Mid) {
            Some(mid) => tucker(mid, up, true, down),
            None => product(up, down),
        }?;
        return Some((Form::Sum(side.matrix), Some(side.size), side.rank));
    }
    if parts.contains_key(&Part::HadaW1A) {
        let one = side(parts, None, [Part::HadaW1A, Part::HadaW1B], Some(Part::HadaT1))?;
        let other = side(parts, None, [Part::HadaW2A, Part::HadaW2B], Some(Part::HadaT2))?;
        let fits = one.size == other.size;
        return fits.then_some((Form::Hadamard(one.matrix, other.matrix), Some(one.size), one.rank));
    }
    if parts.contains_key(&Part::KronW1) || parts.contains_key(&Part::KronW1A) {
        let one = side(parts, Some(Part::KronW1), [Part::KronW1A, Part::KronW1B], None)?;
        let core = Some(Part::KronT2);
        let other = side(parts, Some(Part::KronW2), [Part::KronW2A, Part::KronW2B], core)?;
        let rows = one.size.0.checked_mul(other.size.0)?;
        let columns = one.size.1.checked_mul(other.size.1)?;
        // With both whole there is no rank, and alpha means nothing.
        let rank = other.rank.or(one.rank);
        let form = Form::Kronecker(one.matrix, other.matrix);
        return Some((form, Some((rows, columns)), rank));
    }
    if let Some(whole) = parts.remove(&Part::Difference) {
        let side = whole_matrix(whole)?;
        return Some((Form::Sum(side.matrix), Some(side.size), None));
    }
    let (by, from_one) = if parts.contains_key(&Part::OnInput) {
        (parts.remove(&Part::Weight)?, false)
    } else {
        (parts.remove(&Part::Ia3)?, true)
    };
    // Which side it is of is known beside the layer only.
    let side = Side::Outputs;
    Some((Form::Scaling { by, side, from_one }, None, None))
}

/// A matrix, its size, and the rank between its factors.
struct SideOf {
    matrix: Matrix<Place>,
    size: (usize, usize),
    rank: Option<usize>,
}

/// One of the two matrices of LoHa and LoKr.
fn side(parts: &mut Parts, whole: Option<Part>, [a, b]: [Part; 2], core: Option<Part>) -> Option<SideOf> {
    if let Some(whole) = whole.and_then(|whole| parts.remove(&whole)) {
        return whole_matrix(whole);
    }
    let (a, b) = (parts.remove(&a)?, parts.remove(&b)?);
    match core.and_then(|core| parts.remove(&core)) {
        Some(core) => tucker(core, a, false, b),
        None => product(a, b),
    }
}

fn whole_matrix(whole: Place) -> Option<SideOf> {
    let size = flat(&whole)?;
    Some(SideOf {
        matrix: Matrix::Whole(shaped(whole, &[size.0, size.1])),
        size,
        rank: None,
    })
}

fn product(left: Place, right: Place) -> Option<SideOf> {
    let ((rows, r), (r_again, columns)) = (flat(&left)?, flat(&right)?);
    (r == r_again && (1..=MAX_RANK).contains(&r)).then(|| SideOf {
        matrix: Matrix::Product(shaped(left, &[rows, r]), shaped(right, &[r, columns])),
        size: (rows, columns),
        rank: Some(r),
    })
}

/// `core` (r, q, kernel…) between `rows` and `columns`. Both ranks are at most the larger side, which bounds what is made on
/// the way to the product.
fn tucker(core: Place, rows: Place, rows_first: bool, columns: Place) -> Option<SideOf> {
    let [r, q, kernel @ ..] = &*core.shape else {
        return None;
    };
    let (r, q) = (*r, *q);
    let kernel = product_of(kernel)?;
    let (a, b) = flat(&rows)?;
    let (outputs, r_again) = if rows_first { (a, b) } else { (b, a) };
    let (q_again, inputs) = flat(&columns)?;
    let largest = outputs.max(inputs).min(MAX_RANK);
    let fits = r == r_again && q == q_again && (1..=largest).contains(&r) && (1..=largest).contains(&q);
    let size = (outputs, inputs.checked_mul(kernel)?);
    fits.then(|| SideOf {
        matrix: Matrix::Tucker {
            core: shaped(core, &[r, q, kernel]),
            rows: shaped(rows, &[a, b]),
            rows_first,
            columns: shaped(columns, &[q, inputs]),
        },
        size,
        rank: Some(q),
    })
}

fn shaped(place: Place, shape: &[usize]) -> Place {
    Place {
        shape: shape.to_vec(),
        ..place
    }
}

/// As a matrix: the first dimension, and all others together. A list is a column.
fn flat(place: &Place) -> Option<(usize, usize)> {
    let (rows, rest) = place.shape.split_first()?;
    Some((*rows, product_of(rest)?))
}

/// How many numbers a tensor has.
pub(super) fn count(place: &Place) -> Option<usize> {
    product_of(&place.shape)
}

fn product_of(sizes: &[usize]) -> Option<usize> {
    sizes
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(*size))
}
