//! Algorithms of signatures that are taken, and which of them tokens of an issuer may be signed with.

use crate::limits::ALGORITHMS_MAX;

/// A signature that is taken (RFC 7518, section 3.1; RFC 8037; RFC 9864): with a public key, and none that RFC 8725 advises against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSA with PKCS #1 v1.5 and SHA-256.
    Rs256,
    /// RSA with PKCS #1 v1.5 and SHA-384.
    Rs384,
    /// RSA with PKCS #1 v1.5 and SHA-512.
    Rs512,
    /// RSA with PSS and SHA-256.
    Ps256,
    /// RSA with PSS and SHA-384.
    Ps384,
    /// RSA with PSS and SHA-512.
    Ps512,
    /// ECDSA with P-256.
    Es256,
    /// ECDSA with P-384.
    Es384,
    /// Ed25519.
    Ed25519,
}

/// Every name that an algorithm has. Ed25519 has two (RFC 9864, section 2.2).
pub const ALGORITHM_NAMES: [&str; ALGORITHMS_MAX + 1] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"];

impl Algorithm {
    /// By its name in a token, a key or a list.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::Ed25519,
            _ => return None,
        })
    }

    /// Its name, of two the one that all know.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Ed25519 => "EdDSA",
        }
    }

    /// Whether a list takes it: one without entries takes all. A name that this version does not know takes nothing.
    #[must_use]
    pub fn is_taken_by(self, list: &[String]) -> bool {
        list.is_empty() || list.iter().any(|name| Self::of(name) == Some(self))
    }
}

/// Checks a list of algorithms: of [`ALGORITHM_NAMES`], each algorithm once.
///
/// # Errors
///
/// Which entry is wrong, if it is one of them, and what is expected.
pub fn check_algorithms(names: &[String]) -> Result<(), (Option<usize>, String)> {
    if names.len() > ALGORITHMS_MAX {
        return Err((None, format!("{} are more than {ALGORITHMS_MAX}", names.len())));
    }
    let mut before = vec![];
    for (at, name) in names.iter().enumerate() {
        let Some(algorithm) = Algorithm::of(name) else {
            let problem = format!(
                "`{}` is none that is taken; expected one of {}",
                name.escape_debug(),
                ALGORITHM_NAMES.join(", ")
            );
            return Err((Some(at), problem));
        };
        if before.contains(&algorithm) {
            let other = if algorithm == Algorithm::Ed25519 {
                "; EdDSA and Ed25519 are one algorithm"
            } else {
                ""
            };
            return Err((Some(at), format!("`{name}` is named twice{other}")));
        }
        before.push(algorithm);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_name_is_of_an_algorithm_that_has_it() {
        let mut all: Vec<_> = ALGORITHM_NAMES.map(|name| Algorithm::of(name).unwrap()).into();
        for (name, algorithm) in ALGORITHM_NAMES.iter().zip(&all) {
            assert!(algorithm.name() == *name || *name == "Ed25519");
        }
        all.dedup();
        assert_eq!(all.len(), ALGORITHMS_MAX);
    }

    #[test]
    fn a_list_names_each_algorithm_once() {
        let all = &ALGORITHM_NAMES[..ALGORITHMS_MAX];
        for good in [&[][..], &["ES256"], &["Ed25519"], &["EdDSA"], all] {
            assert_eq!(check_algorithms(&list(good)), Ok(()), "{good:?}");
        }
        for (bad, at, said) in [
            (&["none"][..], Some(0), "none that is taken"),
            (&["HS256"], Some(0), "none that is taken"),
            (&["ES256", "es256"], Some(1), "expected one of RS256"),
            (&["ES256", ""], Some(1), "none that is taken"),
            (&["ES256", "RS256", "ES256"], Some(2), "named twice"),
            (&["EdDSA", "Ed25519"], Some(1), "one algorithm"),
            (&ALGORITHM_NAMES, None, "10 are more than 9"),
        ] {
            let (found, problem) = check_algorithms(&list(bad)).unwrap_err();
            assert!(found == at && problem.contains(said), "{bad:?}: {problem}");
        }
    }

    #[test]
    fn a_list_takes_what_it_names() {
        let (es, ed) = (Algorithm::Es256, Algorithm::Ed25519);
        assert!(es.is_taken_by(&[]) && ed.is_taken_by(&[]));
        assert!(es.is_taken_by(&list(&["RS256", "ES256"])) && !ed.is_taken_by(&list(&["ES256"])));
        for name in ["EdDSA", "Ed25519"] {
            assert!(ed.is_taken_by(&list(&[name])) && !es.is_taken_by(&list(&[name])));
        }
        assert!(!es.is_taken_by(&list(&["ES257"])), "of a later version");
    }
}
