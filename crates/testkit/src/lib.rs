//! For tests only: what Capstan's answers are held against.
//!
//! ```text
//! generate ──▶ a world and questions ─┬─▶ naive model ─▶ answers ─┐
//! worlds/*.yaml ──▶ named worlds ─────┤                           ├─ must be equal
//!                                     └─▶ engine, server ─▶ answers ┘
//! ```
//!
//! - [`Naive`] is the contract read in its most obvious form: quadratic, short, and sharing nothing
//!   with the engine. Whoever doubts an answer reads `naive.rs` beside the contract.
//! - [`generate`] draws small, nasty worlds that are always valid policies, and questions about
//!   them that hit boundaries: of paths, of time, of types, of the words that capability bits lie in.
//! - [`asking`] asks both the same question in every shape. [`fuzz`] says what must hold of any
//!   bytes at all, for property tests and fuzz targets. [`written`] turns facts into documents.
//! - [`routing`] is the naive model of route tables and canonical requests, with draws of both.
//! - [`worlds()`] loads the named worlds of `worlds/`: `NAME.policy.yaml` (or `.json`) and
//!   `NAME.tests.yaml`, in the formats of `capstan policy test`, so that they are examples too. A
//!   bug that was found becomes a world, or a line in one.
//! - [`tables`] holds the reference's table of built-in roles, typed in by another hand than the
//!   embedded catalog.
//!
//! The differential tests honour `PROPTEST_CASES` and say what they compared. Each world is asked
//! about 110 checks, and each other shape 10 times; 10,000,000 checks need about 90,000 worlds:
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
pub mod naive;
pub mod routing;
pub mod tables;
pub mod worlds;
pub mod written;

pub use naive::Naive;
pub use tables::table_2025;
pub use worlds::{World, worlds};
