//! Nothing of one organization depends on the data of another.
//!
//! A random world and the same without its second organization: whatever an identity of the first reads or tries there is
//! answered alike, refusals included.

use capstan_iam::{Kind, Object, Outcome, Refusal};
use capstan_testkit::managed::Managed;
use capstan_testkit::managed::operations::actor;
use fastrand::Rng;

use crate::attack::Attack;
use crate::attack::draw::{operation, world};

/// The world without what is in the other organizations and without bindings there; people stay.
fn alone(world: &Managed, organization: &str) -> Managed {
    let mut alone = Managed::new(std::sync::Arc::clone(world.snapshot().catalog()));
    let is_of = |path: &str| path == organization || path.starts_with(&format!("{organization}/"));
    let kinds = [Kind::Group, Kind::Identity, Kind::Role, Kind::Resource, Kind::RoleBinding];
    for kind in kinds.into_iter().chain(Kind::BESIDE) {
        for object in world.objects().filter(|object| object.kind() == kind) {
            let id = object.id().as_str();
            let is_person = kind == Kind::Identity && !id.contains('/');
            if is_of(id) || is_person {
                alone.put(object.clone()).unwrap();
            }
        }
    }
    alone
}

fn told(judged: Result<Outcome, Box<Refusal>>) -> String {
    match judged {
        Ok(outcome) => {
            // Revisions count all organizations.
            let objects: Vec<_> = outcome.objects.iter().map(|one| (one.kind, &one.id)).collect();
            format!("{objects:?}")
        }
        Err(refusal) => format!("{:?} {refusal}", refusal.told),
    }
}

#[test]
fn answers_about_one_organization_do_not_depend_on_another() {
    let (mut rng, mut compared, mut accepted) = (Rng::with_seed(13), 0, 0);
    for _ in 0..400 {
        let (both, own) = world(&mut rng);
        // An actor of the first organization: bound nowhere else, so that all it has is there.
        let is_elsewhere = |object: &Object| match object {
            Object::RoleBinding(one) => {
                own.contains(&one.identity.as_str().to_owned())
                    && !one.scope.as_str().starts_with("o0")
            }
            _ => false,
        };
        let is_foreign = |id: &String| id.contains('/') && !id.starts_with("o0/");
        if own.iter().any(is_foreign) || both.objects().any(is_elsewhere) {
            continue;
        }
        let one = alone(&both, "o0");
        for who in &own {
            for kind in Kind::ALL {
                assert_eq!(both.list(&actor(who), kind), one.list(&actor(who), kind));
                for object in both.objects().filter(|object| object.kind() == kind) {
                    let id = object.id().as_str();
                    let get = |world: &Managed| {
                        world
                            .get(&actor(who), kind, id)
                            .map_err(|it| (it.told.clone(), it.to_string()))
                    };
                    assert_eq!(get(&both), get(&one), "{id}");
                }
            }
        }
        let mut attack = Attack::new(&both, &own);
        for _ in 0..40 {
            let Some((who, operation)) = operation(&mut rng, &mut attack) else { break };
            // What names a free path is judged alike only if it is free in both.
            let (in_both, in_one) =
                (both.judge(&actor(&who), &operation), one.judge(&actor(&who), &operation));
            compared += 1;
            accepted += u32::from(in_both.is_ok());
            assert_eq!(told(in_both), told(in_one), "{who}: {operation:?}");
        }
    }
    assert!(compared > 2_000 && accepted > 100, "{compared} {accepted}");
}
