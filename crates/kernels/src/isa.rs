//! Which instruction set the kernels use: found once per process, never inside a kernel.

use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::pairs::Amx;
use crate::pairs::{Order, PairUnit};
#[cfg(target_arch = "x86_64")]
use crate::simd::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx512::Avx512;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx512bf16::Avx512Bf16;
#[cfg(target_arch = "aarch64")]
use crate::simd::neon::Neon;
use crate::simd::portable::Portable;
use crate::simd::{Kernel, Simd};

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug)]
pub struct Isa {
    set: Set,
    /// What multiplies pairs of bfloat16, if anything does.
    pairs: Option<PairUnit>,
}

#[derive(Clone, Copy, Debug)]
enum Set {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

const PORTABLE: Isa = Isa::of(Set::Portable(Portable));

/// The one that this process uses.
static CHOSEN: OnceLock<Isa> = OnceLock::new();

impl Isa {
    /// The one that this process uses: the chosen one, or the best that the machine has, AMX left out: how fast that is, nobody has
    /// measured on a processor.
    #[must_use]
    pub fn detect() -> Self {
        *CHOSEN.get_or_init(Self::best)
    }

    fn best() -> Self {
        let has_been_measured = |isa: &Self| !isa.splits();
        Self::available()
            .into_iter()
            .rfind(has_been_measured)
            .unwrap_or(PORTABLE)
    }

    /// Makes the process use the set of this name, so that machines of different age give the same numbers, bit for bit.
    /// Must be called before any kernel has run; returns false when it is too late or the machine does not have the set.
    #[must_use]
    pub fn choose(name: &str) -> bool {
        let named = |isa: &Self| isa.to_string().eq_ignore_ascii_case(name);
        let Some(isa) = Self::available().into_iter().chain(Self::emulated()).find(named) else {
            return false;
        };
        if !isa.pairs.is_none_or(PairUnit::permit) {
            return false;
        }
        CHOSEN.set(isa).is_ok() || named(&Self::detect())
    }

    /// All that this machine has, the best one last. Looks only: what a set has to be permitted for is asked when it is chosen.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut found = vec![PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(Avx2::detect().map(|token| Self::of(Set::Avx2(token))));
            if let Some(token) = Avx512::detect() {
                let set = Set::Avx512(token);
                found.push(Self::of(set));
                found.extend(Avx512Bf16::detect().map(|unit| Self {
                    set,
                    pairs: Some(PairUnit::Avx512(unit)),
                }));
                found.extend(Amx::detect().map(|unit| Self {
                    set,
                    pairs: Some(PairUnit::Amx(unit)),
                }));
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.extend(Neon::detect().map(|token| Self::of(Set::Neon(token))));
        found
    }

    /// The best set of this machine with units for pairs whose results it computes by f32 instructions: how a machine
    /// without such a unit gets the numbers of one that has it, slowly.
    #[must_use]
    pub fn emulated() -> [Self; 2] {
        let Self { set, .. } = Self::best();
        [Order::Chain, Order::Tile].map(|order| Self {
            set,
            pairs: Some(PairUnit::Reference(order)),
        })
    }

    /// The same with its unit's results computed by f32 instructions.
    #[cfg(test)]
    pub(crate) fn by_reference(self) -> Self {
        let pairs = self.pairs.map(|unit| PairUnit::Reference(unit.order()));
        Self { pairs, ..self }
    }

    const fn of(set: Set) -> Self {
        Self { set, pairs: None }
    }

    /// Whether products of f32 are made of split numbers, because that is faster.
    pub(crate) fn splits(self) -> bool {
        self.pairs.is_some_and(|unit| unit.order() == Order::Tile)
    }

    /// What multiplies pairs of bfloat16.
    pub(crate) fn pairs(self) -> Option<PairUnit> {
        self.pairs
    }

    /// Rows that are multiplied at once.
    pub(crate) fn rows(self) -> usize {
        struct Asked;
        impl Kernel for Asked {
            type Output = usize;

            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::ROWS
            }
        }
        self.run(Asked)
    }

    /// Runs `kernel` compiled for this set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.set {
            Set::Portable(token) => kernel.run(token),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(token) => token.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(token) => token.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(token) => token.vectorize(kernel),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.pairs {
            None => self.set.name(),
            Some(PairUnit::Reference(Order::Chain)) => "AVX512-BF16-emulated",
            Some(PairUnit::Reference(Order::Tile)) => "AMX-emulated",
            #[cfg(target_arch = "x86_64")]
            Some(PairUnit::Avx512(_)) => "AVX512-BF16",
            #[cfg(target_arch = "x86_64")]
            Some(PairUnit::Amx(_)) => "AMX",
        })
    }
}

impl Set {
    fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "NEON",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says which they are, because a run under an emulator proves nothing about a set that it lacks.
    #[test]
    fn the_last_of_the_available_sets_is_used_but_for_amx() {
        let names: Vec<String> = Isa::available().iter().map(ToString::to_string).collect();
        println!("instruction sets: {}", names.join(", "));
        assert_eq!(names.first().unwrap(), "portable");
        let measured = names.iter().rfind(|name| *name != "AMX");
        assert_eq!(measured, Some(&Isa::detect().to_string()));
        if cfg!(target_arch = "aarch64") {
            assert_eq!(names, ["portable", "NEON"]);
        }
    }
}
