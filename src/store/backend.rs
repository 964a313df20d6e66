//! The stores that come with the crate, to choose from when a program runs.

use super::datadir::Datadir;
use super::{Store, StoreError, StoreErrorKind};
use core::fmt;
use core::str::FromStr;
use std::path::Path;
use std::sync::Arc;

/// An embedded store that keeps its files in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreBackend {
    /// sled (feature `sled`): light, for pruned nodes, wallets and tests.
    Sled,
    /// fjall (feature `fjall`): log-structured, for full nodes.
    Fjall,
}

impl StoreBackend {
    /// All there are, enabled or not.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Fjall];

    /// Its name, as in the name of its folder (`coins-sled`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
        }
    }

    /// Whether its feature is enabled.
    pub fn is_enabled(self) -> bool {
        match self {
            Self::Sled => cfg!(feature = "sled"),
            Self::Fjall => cfg!(feature = "fjall"),
        }
    }

    /// Opens the data directory's store, creating it if there is none, with a cache of so many bytes for what is
    /// read. Coins that were begun with one backend stay with it, until they are copied ([`super::copy`]).
    ///
    /// # Errors
    /// The store's; `Unsupported` if the feature is not enabled, or if the data directory has a store of another
    /// backend and none of this one.
    pub fn open(self, datadir: &Datadir, cache_bytes: u64) -> Result<Arc<dyn Store>, StoreError> {
        self.open_within(datadir, cache_bytes, None)
    }

    /// The same, with so many bytes for what is written and waits to become files, where the backend has such
    /// (`FjallStore::open_within`); `None`: as it finds best.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_within(
        self,
        datadir: &Datadir,
        cache_bytes: u64,
        write_bytes: Option<u64>,
    ) -> Result<Arc<dyn Store>, StoreError> {
        let folder = datadir.coins_path(self.name());
        let there = Self::ALL.into_iter().find(|other| datadir.coins_path(other.name()).is_dir());
        if let Some(other) = there.filter(|_| !folder.is_dir()) {
            let context = format!("open {self} in a data directory whose coins are kept with {other}");
            return Err(StoreError::new(StoreErrorKind::Unsupported, context));
        }
        self.open_folder(&folder, cache_bytes, write_bytes)
    }

    #[cfg_attr(not(feature = "fjall"), allow(unused_variables))]
    fn open_folder(
        self,
        folder: &Path,
        cache_bytes: u64,
        write_bytes: Option<u64>,
    ) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            #[cfg(feature = "sled")]
            Self::Sled => Ok(Arc::new(super::sled::SledStore::open(folder, cache_bytes)?)),
            #[cfg(feature = "fjall")]
            Self::Fjall => {
                Ok(Arc::new(super::fjall::FjallStore::open_within(folder, cache_bytes, write_bytes)?))
            }
            #[cfg(not(all(feature = "sled", feature = "fjall")))]
            _ => {
                let context = format!("built without the feature `{self}`");
                Err(StoreError::new(StoreErrorKind::Unsupported, context))
            }
        }
    }
}

impl fmt::Display for StoreBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no backend of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such store: {0}")]
pub struct UnknownBackend(pub String);

impl FromStr for StoreBackend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        let found = Self::ALL.into_iter().find(|backend| backend.name() == name);
        found.ok_or_else(|| UnknownBackend(name.to_owned()))
    }
}
