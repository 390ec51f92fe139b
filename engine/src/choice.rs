//! Which engine runs the shards.

use std::fmt;
use std::io;
use std::str::FromStr;

use crate::uring;

/// An engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// io_uring without a runtime: the fast path.
    Uring,
    /// monoio on io_uring.
    Monoio,
    /// monoio on epoll: where the kernel or a container forbids io_uring.
    Epoll,
    /// glommio, if this crate is built with the feature of that name.
    Glommio,
}

impl Kind {
    /// Every engine.
    pub const ALL: [Kind; 4] = [Kind::Uring, Kind::Monoio, Kind::Epoll, Kind::Glommio];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Uring => "uring",
            Kind::Monoio => "monoio",
            Kind::Epoll => "epoll",
            Kind::Glommio => "glommio",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| format!("no engine {name:?}: choose uring, monoio, epoll or glommio"))
    }
}

/// The engine to use, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// Which.
    pub kind: Kind,
    /// Why, in one line.
    pub reason: String,
}

/// Settles on an engine: the one `requested`, or else the fastest that this kernel allows.
///
/// # Errors
/// `Unsupported` when the requested one is not in this build, or needs io_uring and the kernel does not give
/// it; the text says what is missing.
pub fn choose(requested: Option<Kind>) -> io::Result<Chosen> {
    settle(requested, uring::probe(), cfg!(feature = "glommio"))
}

fn settle(requested: Option<Kind>, probed: Result<(), String>, has_glommio: bool) -> io::Result<Chosen> {
    match (requested, probed) {
        (Some(Kind::Glommio), _) if !has_glommio => Err(not_built(Kind::Glommio)),
        (Some(Kind::Epoll), _) => Ok(Chosen { kind: Kind::Epoll, reason: "asked for".into() }),
        (Some(kind), Ok(())) => Ok(Chosen { kind, reason: "asked for".into() }),
        (Some(kind), Err(missing)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("engine {kind} cannot run here: {missing}; use epoll or auto"),
        )),
        (None, Ok(())) => {
            Ok(Chosen { kind: Kind::Uring, reason: "the kernel has all of io_uring that it needs".into() })
        }
        (None, Err(missing)) => {
            Ok(Chosen { kind: Kind::Epoll, reason: format!("uring cannot run here: {missing}") })
        }
    }
}

/// Refuses an engine that is left out of this build.
pub(crate) fn not_built(kind: Kind) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("engine {kind} is not in this build, which has no feature {kind}; use uring, epoll or auto"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("kqueue".parse::<Kind>().unwrap_err().contains("kqueue"));
    }

    #[test]
    fn epoll_is_always_there_and_auto_always_settles() {
        assert_eq!(choose(Some(Kind::Epoll)).unwrap().kind, Kind::Epoll);
        let chosen = choose(None).unwrap();
        assert_eq!(chosen.kind == Kind::Uring, choose(Some(Kind::Uring)).is_ok());
        assert!(!chosen.reason.contains('\n'));
    }

    #[test]
    fn a_build_without_glommio_says_so_whatever_the_kernel_has() {
        for probed in [Ok(()), Err("the kernel has no io_uring".to_owned())] {
            let refused = settle(Some(Kind::Glommio), probed.clone(), false).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
            assert_eq!(
                refused.to_string(),
                "engine glommio is not in this build, which has no feature glommio; use uring, epoll or auto"
            );
            assert!(settle(None, probed.clone(), false).is_ok());
            assert_eq!(settle(Some(Kind::Glommio), probed.clone(), true).is_ok(), probed.is_ok());
        }
    }
}
