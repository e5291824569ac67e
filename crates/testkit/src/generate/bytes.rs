//! Draws from the bytes of a fuzzer, about one byte for each decision, in order. At the end of the bytes,
//! lists end, and other decisions take their first value.

use std::ops::RangeInclusive;

use arbitrary::{Result, Unstructured};
use capstan_engine::{
    AttributeCategory, CONDITIONS_MAX, CatalogFacts, Condition, Timestamp, Value,
};

use super::draw::{
    ACTIONS, ATTRIBUTES, BESIDE, BindingDraw, CapabilitiesDraw, Expiry, OPAQUE, OwnerDraw, PERSONS,
    Place, QuestionDraw, RESOURCES, ROLES, SEGMENTS, Where, WorldDraw, alike, catalog_of, others,
};
use super::{Question, World};

/// The number of additional capabilities: around zero, one and two words of bits.
const WIDE: [usize; 12] = [0, 0, 0, 0, 58, 62, 63, 64, 65, 126, 127, 128];
/// The number of bindings of a crowded world. They are variants of the drawn bindings.
const CROWD: u16 = 230;

/// Generates a world and questions from bytes. `None` would be a bug: any bytes give a world.
#[must_use]
pub fn asked_from(bytes: &[u8]) -> Option<(World, Vec<Question>)> {
    let mut bytes = Unstructured::new(bytes);
    let world = world(&mut bytes).ok()?.world();
    let draws = many(&mut bytes, 1..=12, question).ok()?;
    let questions = draws.iter().filter_map(|draw| draw.about(&world)).collect();
    Some((world, questions))
}

fn world(bytes: &mut Unstructured<'_>) -> Result<WorldDraw> {
    let now = (
        *bytes.choose(&[1_790_000_000, 0, -1])?,
        *bytes.choose(&[0, 1, 500_000_000, 999_999_999])?,
    );
    let deep = rarely(bytes, 16)?;
    let crowded = rarely(bytes, 32)?;
    let catalog = catalog(bytes)?;
    let built_in_roles =
        many(bytes, 0..=4, |bytes| Ok((*bytes.choose(&ROLES)?, capabilities(bytes)?)))?;
    let owner = maybe(bytes, place)?;
    let groups = many(bytes, 1..=4, |bytes| Ok((maybe(bytes, place)?, segment(bytes)?)))?;
    let custom_roles =
        many(bytes, 0..=3, |bytes| Ok((place(bytes)?, segment(bytes)?, capabilities(bytes)?)))?;
    let identities =
        many(bytes, 1..=4, |bytes| Ok((owner_of_properties(bytes)?, rarely(bytes, 6)?)))?;
    let resources = many(bytes, 0..=3, owner_of_properties)?;
    let mut bindings = many(bytes, 0..=12, binding)?;
    if crowded && !bindings.is_empty() {
        let scopes = (0..CROWD).map(|at| Place(at * (u16::MAX / CROWD)));
        bindings = bindings
            .iter()
            .cycle()
            .zip(scopes)
            .map(|(binding, scope)| BindingDraw { scope, ..binding.clone() })
            .collect();
    }
    let now = Timestamp::new(now.0, now.1);
    Ok(WorldDraw {
        catalog,
        built_in_roles,
        owner,
        groups,
        custom_roles,
        identities,
        resources,
        bindings,
        deep,
        now,
    })
}

fn catalog(bytes: &mut Unstructured<'_>) -> Result<CatalogFacts> {
    let resources = many(bytes, 1..=5, |bytes| {
        let name = *bytes.choose(&RESOURCES)?;
        let actions = some(bytes, &ACTIONS)?;
        Ok((name, if actions.is_empty() { vec!["list"] } else { actions }))
    })?;
    Ok(catalog_of(resources, *bytes.choose(&WIDE)?, some(bytes, &OPAQUE)?))
}

fn capabilities(bytes: &mut Unstructured<'_>) -> Result<CapabilitiesDraw> {
    Ok(match bytes.int_in_range(0..=9)? {
        9 => CapabilitiesDraw::Ends,
        8 => CapabilitiesDraw::All,
        _ => CapabilitiesDraw::Some(many(bytes, 0..=5, place)?),
    })
}

fn owner_of_properties(bytes: &mut Unstructured<'_>) -> Result<OwnerDraw> {
    Ok((maybe(bytes, place)?, segment(bytes)?, many(bytes, 0..=2, property)?))
}

fn binding(bytes: &mut Unstructured<'_>) -> Result<BindingDraw> {
    let again = rarely(bytes, 4)?;
    let person = if rarely(bytes, 6)? { Some(*bytes.choose(&PERSONS)?) } else { None };
    let (identity, role, scope) = (place(bytes)?, place(bytes)?, place(bytes)?);
    let expiry = *bytes.choose(&[
        Expiry::Never,
        Expiry::Around(-1),
        Expiry::Around(0),
        Expiry::Around(1),
        Expiry::Around(-1_000_000_000),
        Expiry::Around(1_000_000_000),
        Expiry::WholeSecond(-1),
        Expiry::WholeSecond(0),
        Expiry::WholeSecond(1),
        Expiry::WholeSecond(3600),
    ])?;
    let id = if rarely(bytes, 5)? { Some(segment(bytes)?) } else { None };
    let mut when = many(bytes, 0..=3, condition)?;
    if let (true, [one]) = (rarely(bytes, 16)?, &*when) {
        when = vec![one.clone(); CONDITIONS_MAX];
    }
    Ok(BindingDraw { again, person, identity, role, scope, expiry, id, when })
}

fn condition(bytes: &mut Unstructured<'_>) -> Result<Condition> {
    let ((name, value), equals) = (property(bytes)?, bytes.arbitrary()?);
    Ok(Condition { category: category(bytes)?, name, equals, value })
}

fn question(bytes: &mut Unstructured<'_>) -> Result<QuestionDraw> {
    let binding = maybe(bytes, place)?;
    let identity = (bytes.arbitrary()?, place(bytes)?);
    let capability = (bytes.arbitrary()?, place(bytes)?);
    let at = match bytes.int_in_range(0..=7)? {
        0 => Where::Scope,
        1 => Where::Below(segment(bytes)?),
        2 => Where::Below("a/b/c"),
        3 => Where::Beside(bytes.choose(&BESIDE)?),
        4 => Where::Shortened,
        5 => Where::Parent,
        6 => Where::Identity,
        _ => Where::Unrelated,
    };
    let resource = (at, place(bytes)?);
    let supplied = many(bytes, 0..=4, |bytes| Ok((category(bytes)?, property(bytes)?)))?;
    let meets = bytes.arbitrary()?;
    Ok(QuestionDraw { binding, identity, capability, resource, supplied, meets })
}

fn property(bytes: &mut Unstructured<'_>) -> Result<(String, Value)> {
    let name = (*bytes.choose(&ATTRIBUTES)?).to_owned();
    let values = if rarely(bytes, 4)? { others() } else { alike() };
    Ok((name, bytes.choose(&values)?.clone()))
}

fn category(bytes: &mut Unstructured<'_>) -> Result<AttributeCategory> {
    Ok(*bytes.choose(&[
        AttributeCategory::Subject,
        AttributeCategory::Resource,
        AttributeCategory::Action,
        AttributeCategory::Context,
    ])?)
}

fn segment(bytes: &mut Unstructured<'_>) -> Result<&'static str> {
    Ok(*bytes.choose(&SEGMENTS)?)
}

fn place(bytes: &mut Unstructured<'_>) -> Result<Place> {
    Ok(Place(u16::from(bytes.arbitrary::<u8>()?) * 257))
}

/// True once in this number of times, and never after the end of the bytes.
fn rarely(bytes: &mut Unstructured<'_>, times: u8) -> Result<bool> {
    Ok(bytes.int_in_range(1..=times)? == times)
}

fn maybe<'b, T>(
    bytes: &mut Unstructured<'b>,
    draw: impl FnOnce(&mut Unstructured<'b>) -> Result<T>,
) -> Result<Option<T>> {
    if bytes.arbitrary()? { draw(bytes).map(Some) } else { Ok(None) }
}

/// The items whose bit is set.
fn some<T: Copy>(bytes: &mut Unstructured<'_>, of: &[T]) -> Result<Vec<T>> {
    let bits: u8 = bytes.arbitrary()?;
    Ok((0..).zip(of).filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, one)| *one).collect())
}

/// A list. Its length is in the first byte, and it ends at the end of the bytes.
fn many<'b, T>(
    bytes: &mut Unstructured<'b>,
    length: RangeInclusive<usize>,
    mut draw: impl FnMut(&mut Unstructured<'b>) -> Result<T>,
) -> Result<Vec<T>> {
    let least = *length.start();
    let length = bytes.int_in_range(length)?;
    let mut all = Vec::with_capacity(length);
    while all.len() < least || all.len() < length && !bytes.is_empty() {
        all.push(draw(bytes)?);
    }
    Ok(all)
}
