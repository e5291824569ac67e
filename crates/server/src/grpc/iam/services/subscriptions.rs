//! The generated service of subscriptions.

use capstan_iam::Response as Answer;
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::subscription_service_server::SubscriptionService;
use tonic::{Request, Response};

use super::super::fields::path;
use super::super::kinds::Subscriptions;
use super::super::service::{Iam, ListRequest, ListResponse, Meta};
use super::super::{get, list, objects, subscription};
use super::RpcResult;
use crate::error::CallError;
use crate::methods::Rpc;

#[tonic::async_trait]
impl SubscriptionService for Iam {
    async fn create_subscription(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> RpcResult<v1::CreateSubscriptionResponse> {
        let (answer, revision) = write!(self, request, "iam.CreateSubscription", |request| {
            subscription::create(request, self.webhooks.as_ref())
        });
        let subscription = message!(answer, Answer::Subscription, objects::subscription);
        Ok(Response::new(v1::CreateSubscriptionResponse { subscription, revision }))
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> RpcResult<v1::GetSubscriptionResponse> {
        let (subscription, revision) = get!(self, request, get::subscription);
        Ok(Response::new(v1::GetSubscriptionResponse {
            subscription: Some(subscription),
            revision,
        }))
    }

    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> RpcResult<v1::ListSubscriptionsResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListSubscriptions", list::page::<Subscriptions>);
        let subscriptions = entries;
        Ok(Response::new(v1::ListSubscriptionsResponse {
            subscriptions,
            next_page_token,
            revision,
        }))
    }

    async fn update_subscription(
        &self,
        request: Request<v1::UpdateSubscriptionRequest>,
    ) -> RpcResult<v1::UpdateSubscriptionResponse> {
        let (answer, revision) = write!(self, request, "iam.UpdateSubscription", |request| {
            subscription::update(request, self.webhooks.as_ref())
        });
        let subscription = message!(answer, Answer::Subscription, objects::subscription);
        Ok(Response::new(v1::UpdateSubscriptionResponse { subscription, revision }))
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> RpcResult<v1::DeleteSubscriptionResponse> {
        let (_, revision) = write!(self, request, "iam.DeleteSubscription", subscription::delete);
        Ok(Response::new(v1::DeleteSubscriptionResponse { revision }))
    }

    async fn confirm_subscription(
        &self,
        request: Request<v1::ConfirmSubscriptionRequest>,
    ) -> RpcResult<v1::ConfirmSubscriptionResponse> {
        const RPC: Rpc = Rpc::labelled("iam.ConfirmSubscription");
        let writer = self.writer(RPC, &request).await?;
        let reading = self.reading(&request, None).await?;
        let v1::ConfirmSubscriptionRequest { id, challenge, request_id, validate_only } =
            request.into_inner();
        let id = path("id", &id)?;
        let webhooks = self.webhooks.clone();
        let operation = self.blocking(reading, move |reading, _| {
            subscription::confirm(reading, id, &challenge, webhooks.as_ref())
        });
        let meta = Meta { request_id, validate_only };
        let (answer, revision) = writer.write(operation.await?, meta).await?;
        let subscription = message!(answer, Answer::Subscription, objects::subscription);
        Ok(Response::new(v1::ConfirmSubscriptionResponse { subscription, revision }))
    }
}
