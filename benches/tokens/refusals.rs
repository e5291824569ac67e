//! What the time of a refusal tells: whether an identity exists, or which half of a secret is wrong. That must not be. Of tokens it is shown only:
//! for an identity that has its issuer and subject, a signature is verified.
//!
//! Calls that are refused follow one another in random order, on one connection. How often one of a kind took longer than one of the first
//! kind says whether they can be told apart: half of the time if they cannot, whatever the machine does meanwhile.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_proto::iam::v1::WhoAmIRequest;
use capstan_proto::iam::v1::auth_service_client::AuthServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::World;

/// Calls of each kind, for each second of a turn.
const CALLS_A_SECOND: u64 = 20_000;
/// By how much the share may differ from a half, of as many calls at least. Their error is 0.003.
const SHARE_MAX: f64 = 0.02;

/// A refused credential.
struct Kind {
    name: &'static str,
    authorization: String,
}

fn kinds(world: &World) -> anyhow::Result<[Vec<Kind>; 2]> {
    let basic =
        |user: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")));
    // As long as the right one, whose user is as long as the other.
    let (user, secret) = (&*world.puller, &*world.secret);
    let stranger = format!("{}x", user.get(..user.len() - 1).context("a user")?);
    let wrong = format!("{}x", secret.get(..secret.len() - 1).context("a secret")?);
    let kind = |name, authorization| Kind { name, authorization };
    let secrets = vec![
        kind("a wrong secret of nobody", basic(&stranger, &wrong)),
        kind("a wrong secret of somebody", basic(user, &wrong)),
        kind("somebody's secret of nobody", basic(&stranger, secret)),
        kind("a wrong secret alone", format!("Bearer {wrong}")),
    ];
    // Whose signature is of another key.
    let token = super::signer()?.0.token()?;
    let (bot, other) = (&*world.identity, world.identity.get(1..).context("an identity")?);
    let tokens = vec![
        kind("a token of nobody", basic(&format!("x{other}"), &token)),
        kind("a token of somebody", basic(bot, &token)),
    ];
    Ok([secrets, tokens])
}

async fn refused(client: &mut AuthServiceClient<Channel>, kind: &Kind) -> anyhow::Result<Duration> {
    let mut request = Request::new(WhoAmIRequest {});
    request.metadata_mut().insert("authorization", kind.authorization.parse()?);
    let begun = Instant::now();
    let answer = client.who_am_i(request).await;
    let took = begun.elapsed();
    let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
    ensure!(code == Code::Unauthenticated, "{}: {code:?}", kind.name);
    Ok(took)
}

/// How often one of `these` took longer than one of `others`.
fn share(these: &mut [Duration], others: &mut [Duration]) -> f64 {
    these.sort_unstable();
    others.sort_unstable();
    let (mut shorter, mut longer) = (0, 0_u64);
    for took in these.iter() {
        while others.get(shorter).is_some_and(|other| other < took) {
            shorter += 1;
        }
        longer += shorter as u64;
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let share = longer as f64 / (these.len() as f64 * others.len() as f64);
    share
}

pub(super) async fn run(world: &World, channel: Channel, time: Duration) -> anyhow::Result<()> {
    let mut client = AuthServiceClient::new(channel);
    let calls = u64::try_from(time.as_millis())? * CALLS_A_SECOND / 1_000;
    for (kinds, must_be_alike) in kinds(world)?.iter().zip([true, false]) {
        let mut took: Vec<Vec<Duration>> = kinds.iter().map(|_| vec![]).collect();
        let mut order: Vec<_> = (0..kinds.len()).collect();
        for _ in 0..calls {
            fastrand::shuffle(&mut order);
            for at in &order {
                let (Some(kind), Some(took)) = (kinds.get(*at), took.get_mut(*at)) else {
                    continue;
                };
                took.push(refused(&mut client, kind).await?);
            }
        }
        let (mut first, rest) =
            took.split_first_mut().map(|(first, rest)| (first.clone(), rest)).context("kinds")?;
        for (kind, took) in kinds.iter().skip(1).zip(rest) {
            let share = share(took, &mut first);
            let median =
                |sorted: &[Duration]| sorted.get(sorted.len() / 2).copied().unwrap_or_default();
            writeln!(
                io::stdout(),
                "a refusal of {} takes longer than one of {}: {share:.3} of the time; medians {:.1?} and {:.1?}, {calls} calls of each",
                kind.name,
                kinds.first().map_or("", |kind| kind.name),
                median(took),
                median(&first),
            )?;
            let is_told = calls >= CALLS_A_SECOND && (share - 0.5).abs() >= SHARE_MAX;
            ensure!(!must_be_alike || !is_told, "they can be told apart");
        }
    }
    Ok(())
}
