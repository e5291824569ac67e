//! For tests only: a naive model, generated worlds and named worlds, for comparison with Capstan's answers.
//!
//! ```text
//! generate ──▶ a world and questions ─┬─▶ naive model ─▶ answers ─┐
//! worlds/*.yaml ──▶ named worlds ─────┤                           ├─ must be equal
//!                                     └─▶ engine, server ─▶ answers ┘
//! ```
//!
//! - [`Naive`] is the simplest implementation of the contract: quadratic, short, and without code of the
//!   engine. To verify an answer, read `naive.rs` together with the contract.
//! - [`generate`] draws small worlds that are always valid policies, and questions at the boundaries of
//!   paths, times, types, and words of capability bits.
//! - [`asking`] compares the answers of the engine and the naive model to one question, for every kind of
//!   call. [`fuzz`] has properties of any input bytes, for property tests and fuzz targets. [`written`]
//!   writes facts as documents.
//! - [`routing`] is the naive model of route tables and canonical requests, with generators of both.
//! - [`worlds()`] loads the named worlds of `worlds/`: `NAME.policy.yaml` (or `.json`) and
//!   `NAME.tests.yaml`, in the formats of `capstan policy test`, so that they are also examples. Each found
//!   bug becomes a world, or a line in one.
//! - [`managed`] is a management plane without a store, for operations and attacks.
//! - `https`, with the feature of this name, is a scripted HTTPS server with an authority of its own.
//! - [`tables`] has the reference's table of built-in roles, typed in independently of the built-in
//!   catalog.
//!
//! The differential tests read `PROPTEST_CASES` and print counts. Each world has about 110 checks, and 10
//! calls of each other kind; 10,000,000 checks need about 90,000 worlds:
//!
//! ```text
//! PROPTEST_CASES=90000 cargo test --release -p capstan-testkit --test differential \
//!     the_engine_answers -- --nocapture
//! ```
//!
//! **Invariant**: no product crate depends on this one outside its tests.
//!
//! ```
//! use capstan_engine::{Attributes, Reason};
//! use capstan_testkit::{Naive, worlds};
//!
//! for world in worlds() {
//!     let naive = Naive::new(&world.catalog, world.model.facts(), Attributes::NONE, world.now);
//!     for capability in naive.capabilities() {
//!         let (who, at) = ("no/such/identity", "anywhere");
//!         let answer = naive.check(who, &capability, at);
//!         assert_eq!(answer, Some((Reason::UnknownIdentity, None)));
//!     }
//! }
//! ```

pub mod asking;
pub mod fuzz;
pub mod generate;
#[cfg(feature = "https")]
pub mod https;
pub mod managed;
pub mod naive;
pub mod routing;
pub mod tables;
pub mod worlds;
pub mod written;

pub use naive::Naive;
pub use tables::table_2025;
pub use worlds::{World, worlds};
